"""Stage finetune: the student learns one task, distilled on replay pairs against its parent."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import prefect
import torch
from prefect.cache_policies import NO_CACHE

from gift_core.step import ReplayBatch, StepReport, TaskBatch
from gift_core.training import train
from tasks.check import PlannedTask
from tasks.data.loaders import augmented_batches
from tasks.manifests import ModelManifest, PairsManifest, canonical_json
from tasks.models.encoders import Encoder, best_device, export_tuned
from tasks.progress import Progress
from tasks.replay import ReplaySet, open_frozen, open_model, replay_set
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, read_verified, run_output

History = dict[str, list[float | None]]
HISTORY = "history.json"
REPLAY_SEED_OFFSET = 5_000_000
"""Keeps the order of the replay pairs apart from that of the task's images."""


@prefect.task(task_run_name="finetune-{planned.name}", cache_policy=NO_CACHE, persist_result=False)
def finetune(
    store: ObjectStore,
    planned: PlannedTask,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | None,
) -> Produced[ModelManifest]:
    """Learn one task on top of `parent` (docs/method.md, one step), or find it learnt.

    The teacher and the anchor are both `parent`. Raises Diverged when a loss is not finite, and
    what readers of the data, the pairs and the parent raise.
    """
    inputs = {"parent": parent.digest, "data": planned.digests["train"]}
    if pairs is not None:
        inputs["pairs"] = pairs.digest
    settings = {
        "finetune": planned.finetune.model_dump(mode="json"),
        "class_names": list(planned.class_names),
        "template": planned.templates[0],
    }
    manifest = plan_output(
        ModelManifest,
        stage="finetune",
        name=planned.name,
        inputs=inputs,
        settings=settings,
        seed=seed,
        architecture=parent.architecture,
        parent=parent.digest,
        task=planned.name,
        num_steps=planned.finetune.num_steps,
    )

    def make(directory: Path) -> ModelManifest:
        with TemporaryDirectory(prefix="gift-parent-") as folder:
            student = open_model(store, parent, Path(folder), best_device())
            replay = None
            if pairs is not None:
                replay = replay_set(store, pairs, open_frozen(store, parent, best_device()))
            history = learn(student, planned, seed, replay)
            export_tuned(student.model, Path(folder), directory)
        (directory / HISTORY).write_bytes(canonical_json(history) + b"\n")
        return manifest

    return run_output(store, manifest, make, device=str(best_device()))


def learn(student: Encoder, planned: PlannedTask, seed: int, replay: ReplaySet | None) -> History:
    """Train the student in place; the history, one column a number of StepReport."""
    settings = planned.finetune
    torch.manual_seed(seed)
    batches = _batches(student, planned, seed, replay)
    columns: History = {"step": []}
    with Progress(f"Fine-tuning on {planned.name}", settings.num_steps, "steps") as progress:
        reports: Iterator[StepReport] = train(
            student.model, islice(batches, settings.num_steps), settings
        )
        for number, report in enumerate(reports, start=1):
            columns["step"].append(number)
            for name, value in asdict(report).items():
                columns.setdefault(name, []).append(value)
            progress.advance(note=f"loss {report.task_loss:.3f}, task {report.task_accuracy:.0f} %")
    return columns


def _batches(
    student: Encoder, planned: PlannedTask, seed: int, replay: ReplaySet | None
) -> Iterator[tuple[TaskBatch, ReplayBatch | None]]:
    settings = planned.finetune
    class_tokens_KL = student.tokenize(planned.prompts).to(student.device)
    split = planned.data.open_split("train")
    replayed = (
        replay.batches(settings.batch_size, seed + REPLAY_SEED_OFFSET)
        if replay is not None
        else iter(lambda: None, 0)
    )
    drawn = augmented_batches(split, student.augment, settings.batch_size, seed)
    for (images_BCHW, labels_B), pairs in zip(drawn, replayed, strict=False):
        batch = TaskBatch(
            images_BCHW=student.normalise(images_BCHW),
            labels_B=labels_B.to(student.device),
            class_tokens_KL=class_tokens_KL,
        )
        yield batch, pairs


def read_history(store: ObjectStore, manifest: ModelManifest) -> History:
    """The columns of a fine-tuned model's history, verified; StoreError when altered."""
    history: History = json.loads(read_verified(store, manifest.file(HISTORY)))
    return history
