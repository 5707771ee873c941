"""Refuse before any work is spent: everything that can be wrong is looked at here.

What is found on the way (class lists, digests of the data, the prompt pools) becomes the plan that
the stages work from.
"""

from pydantic import Field

from gift_core.errors import DataError, SettingsError
from gift_core.finetune_settings import FinetuneSettings
from gift_core.prompts import draw_prompts, format_prompt, prompt_pool
from gift_core.settings import Settings
from tasks.data.profiles import words_of
from tasks.data.sources import DataSource, Split
from tasks.data.workers import check_temporary_folder
from tasks.generation import SynthesisSettings
from tasks.models.adaptation import check_adaptable
from tasks.models.starting_model import check_model
from tasks.sequence import PLAIN_TEMPLATES, DataSetSettings, SequenceSettings
from tasks.store.objects import ObjectStore


class PlannedDataSet(Settings):
    """A data set that was found, with its class list settled and its content named by digests."""

    name: str
    data: DataSource
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    digests: dict[str, str] = Field(description="SHA-256 of each split's content")
    num_images: dict[str, int] = Field(description="Images of each split")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The training and generation prompt of each class: the first template."""
        return tuple(format_prompt(self.templates[0], name) for name in self.class_names)

    @property
    def data_set(self) -> "PlannedDataSet":
        """The data set alone, where it is a task: without how it is learnt."""
        return PlannedDataSet(**{name: getattr(self, name) for name in PlannedDataSet.model_fields})


class PlannedTask(PlannedDataSet):
    """A task of the sequence; `index` counts from 1."""

    index: int
    finetune: FinetuneSettings


class Plan(Settings):
    """A sequence that may start: every input was seen."""

    sequence: SequenceSettings
    model_identity: str
    generator_identity: str | None
    pretraining_prompts: tuple[str, ...]
    tasks: tuple[PlannedTask, ...]
    panel: tuple[PlannedDataSet, ...]

    @property
    def replays(self) -> bool:
        """Whether the method needs replay pairs, which are not real pictures."""
        return self.generator_identity is not None

    def earlier(self, task: PlannedTask) -> tuple[PlannedTask, ...]:
        """The tasks before this one, in order."""
        return self.tasks[: task.index - 1]

    def known_prompts(self, task: PlannedTask) -> tuple[str, ...]:
        """What was known before this task, as prompts (docs/method.md, synthetic pairs)."""
        return prompt_pool(self.pretraining_prompts, *(t.prompts for t in self.earlier(task)))

    def prompt_pool(self, task: PlannedTask) -> tuple[str, ...]:
        """The prompts that replay pairs are drawn from: all that was known, or a part of it."""
        if self.sequence.synthesis.prompts == "pretraining":
            return prompt_pool(self.pretraining_prompts)
        return self.known_prompts(task)


def check_sequence(sequence: SequenceSettings, store: ObjectStore) -> Plan:
    """Look at every input of a sequence and settle the plan, or refuse it with one sentence.

    Raises SettingsError, DataError or StoreError (exit code 2); nothing is written but a probe
    that is removed again.
    """
    if not sequence.tasks:
        raise SettingsError(
            f"tasks: {sequence.name} names none; name at least one, or let one arrive in an inbox"
        )
    store.check()
    if sequence.execution.workers != 0:
        check_temporary_folder()
    learning = sequence.learning
    replays = learning.objective.uses_replay and learning.data.replayed == "pairs"
    model_identity = check_model(sequence.model)
    if learning.trained.lora is not None:
        from tasks.models.lora_targets import check_lora  # open_clip: only where it is asked for

        check_lora(sequence.model.architecture, learning.trained)
    generator_identity = sequence.synthesis.generator.check() if replays else None
    prompts = pretraining_prompts(sequence) if learning.objective.uses_replay else ()
    if replays:
        _check_draw(sequence.synthesis, prompts)
        if sequence.synthesis.adaptation is not None:
            check_adaptable(sequence.synthesis.generator)
    tasks, panel = check_data_sets(sequence)
    return Plan(
        sequence=sequence,
        model_identity=model_identity,
        generator_identity=generator_identity,
        pretraining_prompts=prompts,
        tasks=tuple(
            PlannedTask(
                **dict(planned),
                index=number,
                finetune=sequence.finetune_settings(settings, first=number == 1),
            )
            for number, (planned, settings) in enumerate(
                zip(tasks, sequence.tasks, strict=True), start=1
            )
        ),
        panel=panel,
    )


def check_data_sets(
    sequence: SequenceSettings,
) -> tuple[tuple[PlannedDataSet, ...], tuple[PlannedDataSet, ...]]:
    """Look at the data of every task and of the panel; DataError naming all that are wrong."""
    found, problems = [], []
    for where, settings, splits in named_data_sets(sequence):
        try:
            found.append(check_data_set(where, settings, splits))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("; ".join(problems))
    return tuple(found[: len(sequence.tasks)]), tuple(found[len(sequence.tasks) :])


def named_data_sets(
    sequence: SequenceSettings,
) -> list[tuple[str, DataSetSettings, tuple[str, ...]]]:
    """Where each data set stands, tasks first; its settings; and the splits that are needed."""
    split = sequence.evaluation.split
    tasks = [(f"tasks.{n} ({each.name})", each, ("train", split))
             for n, each in enumerate(sequence.tasks)]  # fmt: skip
    panel = [(f"panel.{n} ({each.name})", each, (split,)) for n, each in enumerate(sequence.panel)]
    return [*tasks, *panel]


def pretraining_prompts(sequence: SequenceSettings) -> tuple[str, ...]:
    """The prompts of the pretraining proxy; open_clip's list stands behind `imagenet`."""
    names = sequence.pretraining.class_names
    if names == "imagenet":
        from open_clip import IMAGENET_CLASSNAMES

        names = tuple(IMAGENET_CLASSNAMES)
    if not names:
        raise SettingsError("pretraining.class_names: the list is empty; name at least one class")
    return tuple(format_prompt(sequence.pretraining.template, name) for name in names)


def _check_draw(synthesis: SynthesisSettings, prompts: tuple[str, ...]) -> None:
    """SettingsError when the first task's pool, the smallest of all, is too small for the draw."""
    pool = prompt_pool(synthesis.generator.pool(prompts))
    draw_prompts(pool, synthesis.num_pairs, 0, synthesis.draw)


def check_data_set(
    where: str, settings: DataSetSettings, splits: tuple[str, ...]
) -> PlannedDataSet:
    """Open such splits of a data set; DataError that begins with `where` when one is wrong."""
    opened: dict[str, Split] = {}
    for name in splits:
        try:
            opened[name] = settings.data.open_split(name)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if not len(opened[name]):
            raise DataError(f"{where}: the {name} split has no images")
    try:
        class_names, templates = _words(settings, opened[splits[0]].class_names)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if settings.class_names or not (settings.profile or settings.data.published_as):
        _check_repeated(where, class_names)
    for name, split in opened.items():
        _check_labels(where, name, split, class_names)
    return PlannedDataSet(
        name=settings.name,
        data=settings.data,
        class_names=class_names,
        templates=templates,
        digests={name: split.digest for name, split in opened.items()},
        num_images={name: len(split) for name, split in opened.items()},
    )


def _words(
    settings: DataSetSettings, own_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names and templates: what is given, else the profile's, else the data set's own.

    `own_names` are those of the chosen classes already; DataError when there are no names at all.
    """
    class_names, templates = settings.class_names, settings.templates
    if settings.profile is not None:
        words = words_of(settings.profile, settings.data.published_as or settings.name)
        templates = words.templates if templates == PLAIN_TEMPLATES else templates
        class_names = class_names or words.class_names
        own_names = own_names and tuple(words.written(name) for name in own_names)
    names = settings.data.chosen(class_names) if class_names else own_names
    if not names:
        raise DataError("the data set names no classes; set class_names")
    return names, templates


def _check_repeated(where: str, class_names: tuple[str, ...]) -> None:
    """Published names are left as they are: two classes of ImageNet are called sunglasses."""
    repeated = sorted({label for label in class_names if class_names.count(label) > 1})
    if repeated:
        raise DataError(f"{where}: class_names holds {repeated[0]!r} more than once")


def _check_labels(where: str, name: str, split: Split, class_names: tuple[str, ...]) -> None:
    if split.class_names is not None and len(split.class_names) != len(class_names):
        raise DataError(
            f"{where}: {len(class_names)} class names for the {len(split.class_names)} classes "
            f"of the {name} split"
        )
    lowest, highest = int(split.labels_N.min()), int(split.labels_N.max())
    if lowest < 0 or highest >= len(class_names):
        raise DataError(
            f"{where}: the {name} split has label {lowest if lowest < 0 else highest}, "
            f"but the {len(class_names)} class names allow 0 to {len(class_names) - 1}"
        )
