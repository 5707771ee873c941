"""Everything that a user can set for a sequence, and how it is read from a YAML file.

The same models stand behind the YAML file, the command line and Prefect's run form. Each default
is the paper's (docs/method.md) or says why not.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gift_core.errors import PASSWORD, SettingsError
from gift_core.finetune_settings import FinetuneSettings
from gift_core.gate import GatePolicy
from gift_core.methods import settings_for
from gift_core.objective import Method, Objective
from gift_core.prompts import MAX_TASKS, format_prompt
from gift_core.settings import Settings, added
from tasks.data.profiles import Profile
from tasks.data.sources import DataSource
from tasks.generation import SynthesisSettings
from tasks.models.starting_model import ModelSettings
from tasks.setting_errors import settings_error
from tasks.yaml_file import read_mapping

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a line break or a control character; leave it out")
    return text


def _without_password(url: str) -> str:
    if PASSWORD.search(url):
        raise ValueError(
            "an address may hold no user or password, it is kept and shown; put them into AWS "
            "variables or a block"
        )
    return url


def _checked_template(template: str) -> str:
    try:
        format_prompt(template, "class")
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return template


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
ClassName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Template = Annotated[
    str, Field(max_length=200), AfterValidator(_printable), AfterValidator(_checked_template)
]


PLAIN_TEMPLATES = ("a photo of a {}.",)


class DataSetSettings(Settings):
    """A labelled data set with the words that name its classes."""

    name: Name = Field(description="Short name: lower-case letters, digits, - and _")
    data: DataSource = Field(description="Where the images and labels are")
    class_names: tuple[ClassName, ...] | None = Field(
        default=None,
        description="Class names of the whole data set in label order; empty: the profile's, or "
        "the names in the data set",
    )
    templates: tuple[Template, ...] = Field(
        default=PLAIN_TEMPLATES,
        min_length=1,
        description="Prompt templates with one {}: all are averaged for evaluation, "
        "the first one is the training and generation prompt; at the default, a profile's are used",
    )
    profile: Profile | None = added(
        None,
        description="Class names and templates of a published data set, where they are not given. "
        "mtil: those of the ZSCL family's tables; clip-benchmark: LAION's. The data set is known "
        "by data.dataset, or else by its name",
    )


class TaskSettings(DataSetSettings):
    """One task of the sequence."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate of this task; empty: the sequence's "
        "(paper: 1e-5, but 5e-5 for Aircraft and MNIST)",
    )


class PretrainingSettings(Settings):
    """What stands for the pretraining data in the prompt pool."""

    class_names: Literal["imagenet"] | tuple[ClassName, ...] = Field(
        default="imagenet",
        description="Class names of the pretraining proxy; imagenet: open_clip's 1000 (paper)",
    )
    template: Template = Field(
        default="a photo of a {}.", description="Prompt template with one {} (paper's default)"
    )


class FisherSettings(Settings):
    """How the Fisher diagonal of a new model is estimated."""

    batch_size: int = Field(
        default=64, ge=2, le=65_536, description="Replay pairs a batch (paper: 64)"
    )


class EvaluationSettings(Settings):
    """How models are scored."""

    split: Literal["validation", "test"] = Field(
        default="test", description="Split to score on; choose settings on validation"
    )
    batch_size: int = Field(default=128, ge=1, le=65_536, description="Images a forward pass")
    precision: Literal["fp32", "bf16"] = added(
        "fp32",
        description="Numbers of the towers' arithmetic; similarities are fp32 in both. bf16: "
        "less time on a GPU, other last digits",
    )


class ExecutionSettings(Settings):
    """How the work is done on this machine; nothing here decides what comes out.

    Outputs are therefore found whatever stands here. Sums may be taken in another order (processes,
    compile), which moves the last digits, as another processor does.
    """

    stages: Literal["here", "pools"] = Field(
        default="here",
        description="Where synthesize, finetune, adapt, estimate-fisher and evaluate run: here, in "
        "the sequence's own process; or on pools, each a run of its deployment for a worker",
    )
    generation_runs: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Runs that a task's shards of replay pairs are shared among, all at once on "
        "as many workers; used with stages: pools",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Processes that compute each step together, one a GPU where there are GPUs; "
        "they share the batch (paper: one process on three GPUs)",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Processes that decode and augment a task's images beside each training "
        "process; empty: what the CPUs allow; 0: in the training process itself",
    )
    compile: bool = Field(
        default=False,
        description="Let torch.compile fuse the towers; where it cannot, the run says why and "
        "goes on without",
    )
    recompute: bool = Field(
        default=False,
        description="Keep only each block's input and compute the rest again for the backward "
        "pass: less memory, about a third more time, same result",
    )
    checkpoint_every: int = Field(
        default=100,
        ge=0,
        description="Steps between two checkpoints that a broken run goes on from; 0: only when "
        "it is asked to stop",
    )
    tensorboard: str | None = Field(
        default=".gift/tensorboard",
        description="Folder for TensorBoard files, one folder a run below it; empty: none",
    )
    cache: str = Field(
        default=".gift/cache",
        min_length=1,
        description="Folder for pictures that are decoded once; may be deleted at any time",
    )


class StoreSettings(Settings):
    """Where outputs are kept. Credentials are no setting: AWS variables or a block hold them."""

    url: Annotated[str, AfterValidator(_without_password)] = Field(
        default=".gift/store", min_length=1, description="A folder, or s3://bucket/prefix"
    )
    block: str | None = Field(
        default=None,
        description="Name of a Prefect remote-file-system block whose settings hold endpoint and "
        "credentials; empty: the usual AWS variables",
    )


class SequenceSettings(Settings):
    """A sequence of tasks, learnt one after the other by one model."""

    name: Name = Field(description="Name of the sequence; its report is kept under it")
    method: Method = Field(
        default="gift",
        description="gift, or what it is compared with: zero-shot, finetune, l2, ewc, lwf, "
        "wise-ft, icarl, zscl; joint is an upper bound (docs/method.md, baselines)",
    )
    seed: int = Field(default=42, ge=0, lt=10_000, description="Seed of every draw (paper: 42)")
    model: ModelSettings = Field(description="The pretrained model theta_0")
    pretraining: PretrainingSettings = Field(
        default=PretrainingSettings(), description="The pretraining proxy of the prompt pool"
    )
    tasks: tuple[TaskSettings, ...] = Field(
        default=(),
        max_length=MAX_TASKS,
        description="The tasks, in order; empty where all of them arrive in an inbox",
    )
    panel: tuple[DataSetSettings, ...] = Field(
        default=(), description="Data sets that are only evaluated, beside the tasks"
    )
    synthesis: SynthesisSettings = Field(
        default=SynthesisSettings(), description="Generation of replay pairs"
    )
    finetune: FinetuneSettings = Field(default=FinetuneSettings(), description="Fine-tuning")
    fisher: FisherSettings = Field(default=FisherSettings(), description="Fisher estimate")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="Evaluation")
    gate: GatePolicy = Field(
        default=GatePolicy(),
        description="What a new model may cost and must bring to become the sequence's head; "
        "empty: every model does",
    )
    execution: ExecutionSettings = Field(
        default=ExecutionSettings(), description="How the work is done on this machine"
    )
    baseline: Name | None = Field(
        default=None, description="Name of a sequence in the same store to compare with"
    )
    store: StoreSettings = Field(default=StoreSettings(), description="Where outputs are kept")

    @model_validator(mode="after")
    def _names_are_unique(self) -> "SequenceSettings":
        names = [data_set.name for data_set in (*self.tasks, *self.panel)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"tasks and panel name {', '.join(repeated)} more than once")
        return self

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "SequenceSettings":
        processes, batch_size = self.execution.processes, self.finetune.batch_size
        if batch_size % processes:
            raise ValueError(
                f"finetune.batch_size {batch_size} cannot be shared evenly by "
                f"execution.processes {processes}; choose a multiple of {processes}"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> "SequenceSettings":
        self.learning.check_updates()  # a method brings averages and pulls of its own
        return self

    @property
    def learning(self) -> FinetuneSettings:
        """The settings of fine-tuning with the method's choice applied."""
        return settings_for(self.method, self.finetune)

    @property
    def objective(self) -> Objective:
        """The objective with the method's choice applied."""
        return self.learning.objective

    @property
    def keeps_old_data(self) -> bool:
        """Whether images of earlier or later tasks are used: iCaRL's exemplars, joint training."""
        return self.learning.data.keeps_old_data and len(self.tasks) > 1

    def finetune_settings(self, task: TaskSettings, first: bool = False) -> FinetuneSettings:
        """The settings that one task is learnt with; the `first` one has nothing to hold on to."""
        settings = settings_for(self.method, self.finetune, first)
        if task.learning_rate is None:
            return settings
        return settings.model_copy(update={"learning_rate": task.learning_rate})


def load_sequence(path: Path, **overrides: object) -> SequenceSettings:
    """Read a sequence from YAML; top-level keys in `overrides` replace those of the file.

    Raises SettingsError with one sentence: file, key, what is wrong.
    """
    content = read_mapping(path)
    try:
        return SequenceSettings.model_validate({**content, **overrides})
    except ValidationError as error:
        raise settings_error(error, str(path), SequenceSettings) from None
