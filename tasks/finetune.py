"""Stage finetune: the student learns one task, distilled on replay pairs against its parent."""

import shutil
from pathlib import Path

import prefect
import torch
from prefect.cache_policies import NO_CACHE

from gift_core.errors import SettingsError
from tasks.check import PlannedTask
from tasks.learning import FISHER, INITIAL, LEARNT, PARENT, REPLAY, LearningJob, precision_of
from tasks.learning_run import follow_learning
from tasks.manifests import ModelManifest, PairsManifest, canonical_json
from tasks.models.encoders import best_device
from tasks.reference import (
    NOTHING,
    Reference,
    load_fisher,
    load_initial,
    open_teacher,
    replayed_set,
)
from tasks.scratch import scratch_folder
from tasks.sequence import ExecutionSettings
from tasks.store.checkpoints import save_tensors
from tasks.store.history import HISTORY
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, fetch_output, plan_output, run_output
from tasks.store.step_checkpoints import StepCheckpoints


@prefect.task(task_run_name="finetune-{planned.name}", cache_policy=NO_CACHE, persist_result=False)
def finetune(
    store: ObjectStore,
    planned: PlannedTask,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    execution: ExecutionSettings,
    reference: Reference = NOTHING,
) -> Produced[ModelManifest]:
    """Learn one task on top of `parent` (docs/method.md, one step), or find it learnt.

    The anchor is `parent`, and so is the teacher unless `reference` says another; it holds what
    else baselines and ablations ask for. A run that was broken goes on from its last
    checkpoint. Raises Diverged when training leaves the numbers that mean something, RankLost when
    one of several processes dies, SettingsError when there are fewer GPUs than processes, and what
    readers of the data, the pairs and the parent raise.
    """
    _check_devices(execution)
    manifest = planned_model(planned, seed, parent, pairs, reference)
    checkpoints = StepCheckpoints(store, manifest)
    measured: dict[str, float] = {}

    def make(directory: Path) -> ModelManifest:
        with scratch_folder() as folder:
            given = planned, seed, parent, pairs, execution, reference
            job = _prepare(store, *given, folder)
            history = follow_learning(job, checkpoints, measured)
            for path in (job.folder / LEARNT).iterdir():
                shutil.move(path, directory / path.name)
        (directory / HISTORY).write_bytes(canonical_json(history) + b"\n")
        return manifest

    device = _device_name(planned, execution)
    produced = run_output(store, manifest, make, device=device, measured=measured)
    checkpoints.remove()  # also where it was found: the run that made it may have died just here
    return produced


def planned_model(
    planned: PlannedTask,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    reference: Reference = NOTHING,
) -> ModelManifest:
    """The manifest of the next model before it is learnt: its key is settled."""
    inputs = {"parent": parent.digest, "data": planned.digests["train"]} | reference.inputs
    if pairs is not None:
        inputs["pairs"] = pairs.digest
    return plan_output(
        ModelManifest,
        stage="finetune",
        name=planned.name,
        inputs=inputs,
        settings={
            "finetune": planned.finetune.model_dump(mode="json"),
            "class_names": list(planned.class_names),
            "template": planned.templates[0],
        },
        seed=seed,
        architecture=parent.architecture,
        parent=parent.digest,
        task=planned.name,
        num_steps=planned.finetune.num_steps,
    )


def _check_devices(execution: ExecutionSettings) -> None:
    if torch.cuda.is_available() and execution.processes > torch.cuda.device_count():
        raise SettingsError(
            f"execution.processes: {execution.processes} processes for "
            f"{torch.cuda.device_count()} GPUs; give at most one a GPU"
        )


def _device_name(planned: PlannedTask, execution: ExecutionSettings) -> str:
    several = f"{execution.processes} x " if execution.processes > 1 else ""
    return f"{several}{best_device()} in {precision_of(planned.finetune, best_device())}"


def _prepare(
    store: ObjectStore,
    planned: PlannedTask,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    execution: ExecutionSettings,
    reference: Reference,
    folder: Path,
) -> LearningJob:
    """Lay out in `folder` what the learning processes need."""
    fetch_output(store, parent, folder / PARENT)
    images = None
    if pairs is not None or reference.exemplars:
        teacher = open_teacher(store, parent, reference, best_device())
        cache = Path(execution.cache).absolute()
        replayed = replayed_set(store, pairs, reference, teacher, cache, seed)
        replayed.save(folder / REPLAY)
        images = replayed.images_path
    for name, tensors in (
        (FISHER, load_fisher(store, reference)),
        (INITIAL, load_initial(store, reference, planned.finetune)),
    ):
        if tensors:
            save_tensors(folder / name, tensors, {})
    return LearningJob(
        planned=planned,
        seed=seed,
        execution=execution,
        folder=folder,
        replay_images=images,
        joint=reference.joint,
    )
