"""How a sequence grows: what its head has learnt, and the sequence with one more task on top.

The tasks of a grown sequence are those of the models from theta_0 to the head, in that order, then
the new one. Their settings come from the sequence file and from what arrived.
"""

from pydantic import ValidationError

from gift_core.errors import DataError, SettingsError, StoreError
from tasks.adapt import planned_adapter
from tasks.batch_size import with_known_batch_size
from tasks.check import Plan, PlannedTask
from tasks.manifests import (
    AdapterManifest,
    ModelManifest,
    PairsManifest,
    canonical_json,
    sha256_hex,
)
from tasks.sequence import SequenceSettings, TaskSettings
from tasks.setting_errors import settings_error
from tasks.store.arrivals import Arrivals
from tasks.store.heads import HeadEntry
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output
from tasks.synthesize import deciding, plan_pairs


def models_of(store: ObjectStore, head: HeadEntry) -> tuple[ModelManifest, ...]:
    """The models from theta_0 to a head's; StoreError where one of them is missing."""
    by_digest = {digest: reference for reference, digest in head.lineage.items()}
    models: list[ModelManifest] = []
    digest: str | None = head.model.digest
    while digest is not None:
        reference = by_digest.get(digest, head.model.output)
        model = find_output(store, ModelManifest, *reference.split("/"))
        if model is None or model.digest != digest:
            raise StoreError(
                f"{store.url}/outputs/{reference} is missing or was altered, and the head of "
                f"{head.sequence} descends from it; `gift verify` lists all damage"
            )
        models.insert(0, model)
        digest = model.parent
    return tuple(models)


def tasks_of(models: tuple[ModelManifest, ...]) -> tuple[str, ...]:
    """The names of the tasks that such models have learnt, in order."""
    return tuple(model.task for model in models if model.task is not None)


def grown(
    sequence: SequenceSettings,
    arrivals: Arrivals,
    models: tuple[ModelManifest, ...],
    new: TaskSettings,
) -> SequenceSettings:
    """The sequence of the models' tasks and a new one.

    Raises DataError when the new one's name is taken, SettingsError when nobody knows the settings
    of a task that was learnt, or when the method does not learn one task after the other.
    """
    if sequence.method in ("zero-shot", "joint"):
        raise SettingsError(
            f"method: {sequence.method} learns no task on top of another, so {sequence.name} "
            "cannot grow; run it as a sequence that lists its tasks"
        )
    tasks = [_settings(sequence, arrivals, model) for model in models if model.task is not None]
    taken = {task.name for task in (*tasks, *sequence.panel)}
    if new.name in taken:
        raise DataError(
            f"{sequence.name} has a data set called {new.name} already; give the new task "
            "another name"
        )
    try:
        return SequenceSettings.model_validate({**dict(sequence), "tasks": (*tasks, new)})
    except ValidationError as error:
        raise settings_error(error, sequence.name, SequenceSettings) from None


def check_unchanged(
    store: ObjectStore, plan: Plan, head: HeadEntry, models: tuple[ModelManifest, ...]
) -> None:
    """SettingsError when a model would be made anew: file, data or models changed since.

    What is made anew would take the place of the head without anybody having asked for it.
    """
    first, learnt = models[0], models[1:]
    if first.inputs.get("model") != plan.model_identity:
        raise _changed(plan, "the pretrained model")
    for task, model in zip(plan.tasks, learnt, strict=False):
        expected = {
            "finetune": task.finetune.model_dump(mode="json"),
            "class_names": list(task.class_names),
            "template": task.templates[0],
        }
        if (model.settings, model.seed) != (expected, plan.sequence.seed):
            raise _changed(plan, f"the settings of task {task.name}")
        if model.inputs.get("data") != task.digests["train"]:
            raise _changed(plan, f"the data of task {task.name}")
        if not _same_pairs(store, plan, head, task, models):
            raise _changed(plan, f"what the replay pairs of task {task.name} are made with")


def _settings(sequence: SequenceSettings, arrivals: Arrivals, model: ModelManifest) -> TaskSettings:
    """The settings that a model's task was learnt with."""
    output = f"{model.stage}/{model.key}"
    for arrival in arrivals.tasks:
        if arrival.model is not None and arrival.model.output == output:
            return TaskSettings.model_validate(arrival.settings)
    for task in sequence.tasks:
        if task.name == model.task:
            return task
    raise SettingsError(
        f"{sequence.name}: its head has learnt {model.task}, which is neither in the sequence file "
        "nor among the tasks that arrived; put it back into the file"
    )


def _same_pairs(
    store: ObjectStore,
    plan: Plan,
    head: HeadEntry,
    task: PlannedTask,
    models: tuple[ModelManifest, ...],
) -> bool:
    """Whether the pairs that a model was learnt with are those that the plan would make."""
    parent, model = models[task.index - 1 : task.index + 1]
    if plan.generator_identity is None or "pairs" not in model.inputs:
        return plan.generator_identity is None and "pairs" not in model.inputs
    by_digest = {digest: reference for reference, digest in head.lineage.items()}
    reference = by_digest.get(model.inputs["pairs"])
    pairs = find_output(store, PairsManifest, *reference.split("/")) if reference else None
    if pairs is None:
        return False
    asked = with_known_batch_size(
        store,
        plan_pairs(
            task.name,
            task.index,
            plan.prompt_pool(task),
            plan.sequence.synthesis,
            plan.generator_identity,
            plan.sequence.seed,
            parent,
            _adapters(plan, task, models[1:]),
        ),
    )
    if asked is None:
        return False
    prompts_sha256 = sha256_hex(canonical_json(list(asked.prompts)))
    wanted = asked.generator_identity, deciding(asked), asked.batch_size_found, prompts_sha256
    found = pairs.generator, pairs.settings, pairs.inputs.get("batch-size"), pairs.prompts_sha256
    used = [f"adapt/{each.key}" for each, _ in asked.by_adapter(asked.prompts) if each]
    adapters = [by_digest.get(of) for to, of in pairs.inputs.items() if to.startswith("adapter-")]
    return (found, adapters) == (wanted, used)


def _adapters(
    plan: Plan, task: PlannedTask, learnt: tuple[ModelManifest, ...]
) -> list[AdapterManifest]:
    """What the plan would adapt the generator to before a task."""
    sequence = plan.sequence
    if sequence.synthesis.adaptation is None or plan.generator_identity is None:
        return []
    return [
        planned_adapter(
            each.data_set, model, sequence.synthesis, plan.generator_identity, sequence.seed
        )
        for each, model in zip(plan.earlier(task), learnt, strict=False)
    ]


def _changed(plan: Plan, what: str) -> SettingsError:
    name = plan.sequence.name
    return SettingsError(
        f"{name}: {what} changed since its head was learnt, so that the whole would be learnt "
        "anew; change it back, or give the sequence file another name and run it"
    )
