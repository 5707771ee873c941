"""Stage evaluate: one row of the accuracy matrix, zero-shot, on every task seen and unseen."""

from collections.abc import Sequence
from pathlib import Path

import prefect
import torch
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from gift_core.features import encode_images
from gift_core.prompts import format_prompt
from gift_core.zero_shot import predict, zero_shot_classifier
from tasks.check import PlannedDataSet
from tasks.data.loaders import cropped_batches
from tasks.manifests import ModelManifest, Score, ScoresManifest
from tasks.models.encoders import Encoder, best_device
from tasks.progress import Progress
from tasks.replay import open_frozen
from tasks.sequence import EvaluationSettings
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output


@prefect.task(
    name="evaluate",
    task_run_name="evaluate-after-{model.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def evaluate(
    store: ObjectStore,
    model: ModelManifest,
    tasks: Sequence[PlannedDataSet],
    panel: Sequence[PlannedDataSet],
    settings: EvaluationSettings,
) -> Produced[ScoresManifest]:
    """Score a model on every task of the sequence and on the panel (docs/method.md, metrics)."""
    data_sets = [*tasks, *panel]
    split = settings.split
    manifest = planned_scores(model, tasks, panel, settings)

    def make(_directory: Path) -> ScoresManifest:
        encoder = open_frozen(store, model, best_device())
        total = sum(data_set.num_images[split] for data_set in data_sets)
        with Progress(f"Evaluating after {model.name}", total, "images") as progress:
            scores = [score_data_set(encoder, each, settings, progress) for each in data_sets]
        return manifest.model_copy(
            update={"tasks": tuple(scores[: len(tasks)]), "panel": tuple(scores[len(tasks) :])}
        )

    return run_output(store, manifest, make, device=str(best_device()))


def planned_scores(
    model: ModelManifest,
    tasks: Sequence[PlannedDataSet],
    panel: Sequence[PlannedDataSet],
    settings: EvaluationSettings,
) -> ScoresManifest:
    """The manifest of a row before it is scored: its key is settled."""
    data_sets = [*tasks, *panel]
    inputs = {"model": model.digest} | {
        f"data:{data_set.name}": data_set.digests[settings.split] for data_set in data_sets
    }
    decided = settings.model_dump(mode="json") | {
        "tasks": [_words(data_set) for data_set in tasks],
        "panel": [_words(data_set) for data_set in panel],
    }
    return plan_output(
        ScoresManifest,
        name=f"after-{model.name}",
        inputs=inputs,
        settings=decided,
        seed=0,
        model=model.digest,
        after_task=model.task,
        tasks=(),
        panel=(),
    )


def _words(data_set: PlannedDataSet) -> dict[str, object]:
    return {
        "name": data_set.name,
        "class_names": list(data_set.class_names),
        "templates": list(data_set.templates),
    }


def score_data_set(
    encoder: Encoder, data_set: PlannedDataSet, settings: EvaluationSettings, progress: Progress
) -> Score:
    """Count the images of a split whose highest cosine similarity is their own class's."""
    weights_KD = zero_shot_classifier(encoder.model, class_tokens(encoder, data_set))
    split = data_set.data.open_split(settings.split)
    num_correct = 0
    with torch.no_grad():
        for images_BCHW, labels_B in cropped_batches(split, encoder.crop, settings.batch_size):
            features_BD = encode_images(encoder.model, encoder.normalise(images_BCHW))
            predicted_B = predict(features_BD, weights_KD).cpu()
            num_correct += int((predicted_B == labels_B).sum())
            progress.advance(len(labels_B), note=data_set.name)
    return Score(
        data_set=data_set.name,
        split=settings.split,
        num_correct=num_correct,
        num_images=len(split),
    )


def class_tokens(encoder: Encoder, data_set: PlannedDataSet) -> Tensor:
    """Tokens int64 (K, R, L): K classes by R templates."""
    texts = [
        format_prompt(template, name)
        for name in data_set.class_names
        for template in data_set.templates
    ]
    return encoder.tokenize(texts).view(len(data_set.class_names), len(data_set.templates), -1)
