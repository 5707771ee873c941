"""Stage adapt: the generator learns how a task's images look, for that task's replay later on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import prefect
from prefect.cache_policies import NO_CACHE

from gift_core.errors import SettingsError
from gift_core.selection import most_confident
from tasks.check import PlannedDataSet
from tasks.data.splits import Split
from tasks.generation import Judge, SynthesisSettings
from tasks.manifests import AdapterManifest, ModelManifest, canonical_json
from tasks.models.encoders import best_device
from tasks.models.generators import check_identity
from tasks.progress import Progress
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, read_verified, run_output

HISTORY = "history.json"
ASKED_AT_ONCE = 256
"""Images that the model is asked about in one batch."""


@prefect.task(
    name="adapt",
    task_run_name="adapt-{planned.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def adapt_generator(
    store: ObjectStore,
    planned: PlannedDataSet,
    model: ModelManifest,
    synthesis: SynthesisSettings,
    generator_identity: str,
    seed: int,
) -> Produced[AdapterManifest]:
    """Learn a LoRA of the generator on a task's images (docs/method.md, adaptation), or find it.

    `model` is the one after the task; it chooses the images. Raises SettingsError when the
    generator cannot be adapted or is another one than planned, Diverged when its loss is no number,
    and what readers of the data and the model raise.
    """
    manifest = planned_adapter(planned, model, synthesis, generator_identity, seed)
    settings = synthesis.adaptation
    if settings is None:
        raise ValueError("no adaptation is asked for")

    def make(directory: Path) -> AdapterManifest:
        # torch takes a second: only where there is work
        from tasks.models.pipelines import PipelineGenerator
        from tasks.models.unet_lora import UnetLora
        from tasks.recognition import teacher_judge

        split = planned.data.open_split("train")
        prompts_N = [planned.prompts[label] for label in split.labels_N]
        sure = _confidences(teacher_judge(store, model, planned.prompts), planned, split, prompts_N)
        rows = most_confident(sure, split.labels_N.tolist(), settings.num_images)
        whole = {"precision": "fp32", "compile": False, "channels_last": False}
        generator = synthesis.generator.model_copy(update=whole).load(best_device())
        check_identity(generator.identity, generator_identity)
        if not isinstance(generator, PipelineGenerator):
            raise SettingsError("synthesis.adaptation: only a diffusers pipeline can be adapted")
        lora = UnetLora(generator, settings, seed)
        losses = []
        with Progress(f"Generator adapted to {planned.name}", settings.num_steps, "steps") as steps:
            images = [split.image(row) for row in rows]
            for loss in lora.learn(images, [prompts_N[row] for row in rows]):
                losses.append(loss)
                steps.advance(note=f"loss {loss:.4f}")
        lora.save(directory)
        learnt = {"loss": losses, "image": list(rows), "confidence": [sure[row] for row in rows]}
        (directory / HISTORY).write_bytes(canonical_json(learnt) + b"\n")
        return manifest.model_copy(update={"num_images": len(rows)})

    return run_output(store, manifest, make, device=str(best_device()))


def planned_adapter(
    planned: PlannedDataSet,
    model: ModelManifest,
    synthesis: SynthesisSettings,
    generator_identity: str,
    seed: int,
) -> AdapterManifest:
    """The manifest of an adapter before it is learnt: its key is settled.

    How pictures are sampled (steps, guidance, batches) decides nothing here.
    """
    if synthesis.adaptation is None:
        raise ValueError("no adaptation is asked for")
    return plan_output(
        AdapterManifest,
        name=planned.name,
        inputs={
            "model": model.digest,
            "data": planned.digests["train"],
            "generator": generator_identity,
        },
        settings={
            "adaptation": synthesis.adaptation.model_dump(mode="json"),
            "image_size": getattr(synthesis.generator, "image_size", None),
            "prompts": list(planned.prompts),
        },
        seed=seed,
        task=planned.name,
        model=model.digest,
        prompts=tuple(dict.fromkeys(planned.prompts)),
        num_images=0,
    )


def read_history(store: ObjectStore, manifest: AdapterManifest) -> dict[str, list[float]]:
    """What an adapter was learnt from, verified: the loss of each step; images and confidences."""
    history: dict[str, list[float]] = json.loads(read_verified(store, manifest.file(HISTORY)))
    return history


def _confidences(
    judge: Judge, planned: PlannedDataSet, split: Split, prompts_N: Sequence[str]
) -> list[float]:
    """How sure the model is of each image's own class among the classes of the task."""
    sure: list[float] = []
    with Progress(f"Images of {planned.name}", len(split), "images") as progress:
        for first in range(0, len(split), ASKED_AT_ONCE):
            rows = range(first, min(first + ASKED_AT_ONCE, len(split)))
            images = [np.asarray(split.image(row)) for row in rows]
            _, sure_B = judge(images, prompts_N[rows.start : rows.stop])
            sure += sure_B.tolist()
            progress.advance(len(rows), note="asking the model")
    return sure
