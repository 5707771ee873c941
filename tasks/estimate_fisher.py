"""Stage estimate-fisher: what the replay pairs say matters in a new model, and what moved."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import prefect
import torch
from prefect.cache_policies import NO_CACHE

from gift_core.fisher import block_drift, estimate_fisher, estimate_task_fisher
from gift_core.objective import Objective
from gift_core.step import ReplayBatch, TaskBatch
from gift_core.teacher import Teacher
from tasks.manifests import BlockDrift, FisherManifest, Json, ModelManifest, PairsManifest
from tasks.models.encoders import Encoder, best_device
from tasks.progress import Progress
from tasks.reference import FISHER, NOTHING, Reference, open_teacher, replayed_set
from tasks.replay import ReplaySet, open_frozen, open_model
from tasks.scratch import scratch_folder
from tasks.sequence import FisherSettings
from tasks.store.checkpoints import save_tensors
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output

B = TypeVar("B", ReplayBatch, TaskBatch)


@prefect.task(
    name="estimate-fisher",
    task_run_name="estimate-fisher-{model.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fisher_of_model(
    store: ObjectStore,
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    objective: Objective,
    settings: FisherSettings,
    cache: str,
    reference: Reference = NOTHING,
) -> Produced[FisherManifest]:
    """Estimate the Fisher diagonal of a new model on the replay pairs (docs/method.md step 5).

    For EWC it is that of the task loss on the reference's labelled images instead. With it goes the
    drift of each block against its parent, plain and weighted by Fisher. Cropped images are kept in
    the folder `cache`.
    """
    manifest = planned_fisher(model, parent, pairs, objective, settings, reference)

    def make(directory: Path) -> FisherManifest:
        before = open_frozen(store, parent, best_device())
        teacher = open_teacher(store, parent, reference, best_device())
        with scratch_folder() as folder:
            student = open_model(store, model, folder, best_device())
        student.model.eval()
        replay = replayed_set(store, pairs, reference, teacher, Path(cache), manifest.seed)
        fisher = _estimated(replay, student, objective, settings, model.name)
        save_tensors(directory / FISHER, fisher, {"model": model.digest})
        drift = block_drift(_parameters(before), _parameters(student), fisher)
        return manifest.model_copy(
            update={"drift": tuple(BlockDrift(**asdict(block)) for block in drift)}
        )

    return run_output(store, manifest, make, device=str(best_device()))


def planned_fisher(
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    objective: Objective,
    settings: FisherSettings,
    reference: Reference = NOTHING,
) -> FisherManifest:
    """The manifest of a Fisher diagonal before it is estimated: its key is settled."""
    inputs = {"model": model.digest, "parent": parent.digest} | reference.inputs
    decided: Json = {"fisher": settings.model_dump(mode="json")}
    if objective.is_ewc:  # whatever the penalty weighs, it is the task loss's
        decided["memory"] = reference.memory
    else:
        decided["objective"] = objective.model_dump(mode="json")
    if reference.teacher != Teacher():
        decided["teacher"] = reference.teacher.model_dump(mode="json")
    return plan_output(
        FisherManifest,
        name=model.name,
        inputs=inputs if pairs is None else inputs | {"pairs": pairs.digest},
        settings=decided,
        seed=0,
        model=model.digest,
        pairs=None if pairs is None else pairs.digest,
        drift=(),
    )


def _estimated(
    replay: ReplaySet, student: Encoder, objective: Objective, settings: FisherSettings, name: str
) -> dict[str, torch.Tensor]:
    with Progress(f"Fisher diagonal of {name}", len(replay.prompt_ids_N), "images") as progress:

        def counted(batches: Iterator[B]) -> Iterator[B]:
            for batch in batches:
                yield batch
                progress.advance(len(batch.images_bCHW))

        if objective.is_ewc:
            tasks = replay.task_batches_once(student, settings.batch_size)
            return estimate_task_fisher(student.model, counted(tasks))
        pairs = replay.batches_once(student, settings.batch_size)
        return estimate_fisher(student.model, counted(pairs), objective)


def _parameters(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in encoder.model.named_parameters()}
