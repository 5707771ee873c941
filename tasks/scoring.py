"""A model on one data set after the other, and on replay pairs: each an output of its own.

A row of the accuracy matrix joins them. What a longer sequence asks of a model that was scored
before is found, and only what is new is computed. A model is loaded once, a class list encoded
once, a data set's images are decoded once for all models of one preprocessing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gift_core import scoring
from gift_core.engine import AUTOCAST
from gift_core.errors import DataError
from gift_core.features import encode_images
from gift_core.prompts import format_prompt
from gift_core.retrieval import retrieve
from gift_core.scoring import Answers, ClassesSeen
from gift_core.zero_shot import zero_shot_classifier
from tasks.check import PlannedDataSet
from tasks.data.image_cache import cached_images
from tasks.data.splits import Split
from tasks.manifests import (
    Json,
    ModelManifest,
    PairsManifest,
    Retrieval,
    RetrievalManifest,
    Score,
    ScoreManifest,
)
from tasks.models.encoders import Encoder, best_device
from tasks.replay import cropped_key, open_frozen, replay_set
from tasks.sequence import EvaluationSettings
from tasks.store.checkpoints import save_tensors
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output

Told = Callable[[int], None]
"""Is told how many images are done more; each is told twice, decoded and answered."""


def planned_score(
    model: ModelManifest,
    data_set: PlannedDataSet,
    seen: Sequence[PlannedDataSet],
    settings: EvaluationSettings,
) -> ScoreManifest:
    """The manifest of a score before it is known: its key is settled.

    `seen` are the tasks that the model has learnt where the data set is one of them, else none.
    """
    decided = settings.model_dump(mode="json") | words_of(data_set)
    if seen:
        decided["seen"] = [words_of(each) for each in seen]
    return plan_output(
        ScoreManifest,
        name=f"{data_set.name}-after-{model.name}",
        inputs={"model": model.digest, "data": data_set.digests[settings.split]},
        settings=decided,
        model=model.digest,
        score=Score(data_set=data_set.name, split=settings.split, num_correct=0, num_images=1),
    )


def words_of(data_set: PlannedDataSet) -> Json:
    """What a data set is called, and what makes its classifier."""
    return {
        "name": data_set.name,
        "class_names": list(data_set.class_names),
        "templates": list(data_set.templates),
    }


@dataclass
class Scorer:
    """One model, loaded when the first score is missing; `cache` holds images decoded before."""

    store: ObjectStore
    model: ModelManifest
    settings: EvaluationSettings
    cache: Path
    _classifiers: dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = field(
        default_factory=dict
    )

    @cached_property
    def encoder(self) -> Encoder:
        """The model, frozen."""
        return open_frozen(self.store, self.model, best_device())

    def score(
        self, data_set: PlannedDataSet, seen: Sequence[PlannedDataSet], told: Told
    ) -> Produced[ScoreManifest]:
        """Find or make the score on a data set; `seen` as for `planned_score`.

        Raises DataError when its images cannot be read, or are not those that were planned with.
        """
        planned = planned_score(self.model, data_set, seen, self.settings)

        def make(folder: Path) -> ScoreManifest:
            union = self._classes_seen(seen) if seen else None
            answers, seen_N = self._answers(data_set, union, told)
            tensors, measured = {"predicted": answers.predicted_N.int()}, _measures(answers)
            if union is not None and seen_N is not None:
                names = [each.name for each in seen]
                before = seen[: names.index(data_set.name)]
                start = sum(len(each.class_names) for each in before)
                right_N = union.right(seen_N, answers.labels_N, start)
                tensors["predicted_seen"] = seen_N.int()
                measured["num_correct_seen"] = int(right_N.sum())
            save_tensors(folder / f"answers-{data_set.name}.safetensors", tensors, {})
            score = planned.score.model_copy(update=measured)
            return planned.model_copy(update={"score": score})

        produced = run_output(self.store, planned, make, device=str(best_device()))
        if produced.reused:
            told(2 * produced.manifest.score.num_images)
        return produced

    def retrieve(self, pairs: PairsManifest) -> Produced[RetrievalManifest]:
        """Find or make the retrieval on the replay pairs of a task."""
        planned = plan_output(
            RetrievalManifest,
            name=f"pairs-of-{pairs.task}-after-{self.model.name}",
            inputs={"model": self.model.digest, "pairs": pairs.digest},
            settings=self.settings.model_dump(mode="json", include={"precision"}),
            model=self.model.digest,
            pairs=pairs.digest,
            retrieval=Retrieval(
                num_pictures=1, num_pictures_right=0, num_prompts=1, num_prompts_right=0
            ),
        )

        def make(folder: Path) -> RetrievalManifest:
            with self._precision():
                known = replay_set(self.store, pairs, self.encoder, self.cache)
            found = retrieve(known.teacher_images_ND, known.teacher_texts_PD, known.prompt_ids_N)
            tensors = {"prompts": found.prompts_N.int(), "pictures": found.pictures_P.int()}
            save_tensors(folder / f"retrieved-{pairs.task}.safetensors", tensors, {})
            retrieval = Retrieval(
                num_pictures=len(found.prompts_N),
                num_pictures_right=found.num_pictures_right,
                num_prompts=len(found.pictures_P),
                num_prompts_right=found.num_prompts_right,
            )
            return planned.model_copy(update={"retrieval": retrieval})

        return run_output(self.store, planned, make, device=str(best_device()))

    def _answers(
        self, data_set: PlannedDataSet, union: ClassesSeen | None, told: Told
    ) -> tuple[Answers, Tensor | None]:
        """The answers to every image, and those among the classes of all tasks seen."""
        weights_KD = self._classifier(data_set)
        scale = float(self.encoder.model.logit_scale.exp())
        split = self._open(data_set)
        batches, among = [], []
        for images_BCHW, labels_B in self._batches(split, told):
            with torch.no_grad(), self._precision():
                features_BD = encode_images(self.encoder.model, self.encoder.normalise(images_BCHW))
            batches.append(scoring.answer(features_BD, weights_KD, labels_B, scale))
            if union is not None:
                among.append(union.predict(features_BD))
            told(len(labels_B))
        return scoring.joined(batches), torch.cat(among) if among else None

    def _classifier(self, data_set: PlannedDataSet) -> Tensor:
        """The weights (K, D) of a class list, encoded once."""
        words = data_set.class_names, data_set.templates
        if words not in self._classifiers:
            tokens_KRL = class_tokens(self.encoder, data_set)
            with self._precision():
                self._classifiers[words] = zero_shot_classifier(self.encoder.model, tokens_KRL)
        return self._classifiers[words]

    def _classes_seen(self, seen: Sequence[PlannedDataSet]) -> ClassesSeen:
        weights = [self._classifier(each) for each in seen]
        return ClassesSeen.of(weights, [each.class_names for each in seen])

    def _open(self, data_set: PlannedDataSet) -> Split:
        split = data_set.data.open_split(self.settings.split)
        if split.digest != data_set.digests[self.settings.split]:
            raise DataError(
                f"{data_set.name}: its {self.settings.split} split is not the one that the run was "
                "planned with; give every worker the same files, and run again"
            )
        return split

    def _batches(self, split: Split, told: Told) -> Iterator[tuple[Tensor, Tensor]]:
        """A split once, in order: uint8 (B, 3, H, W) and int64 labels (B,), decoded once."""
        images_NCHW: NDArray[np.uint8] = cached_images(
            self.cache,
            cropped_key(split.digest, self.encoder),
            len(split),
            split.image,
            self.encoder.crop,
            told,
        )
        for start in range(0, len(split), self.settings.batch_size):
            rows = slice(start, start + self.settings.batch_size)
            images_BCHW = torch.from_numpy(np.array(images_NCHW[rows]))
            yield images_BCHW, torch.from_numpy(split.labels_N[rows])

    def _precision(self) -> AbstractContextManager[None]:
        dtype = AUTOCAST.get(self.settings.precision)
        return torch.autocast(best_device().type, dtype=dtype, enabled=dtype is not None)


def _measures(answers: Answers) -> Json:
    """The fields of a score that ask for nothing but its own classes."""
    top_N = answers.in_top_N
    return {
        "num_correct": int(answers.right_N.sum()),
        "num_images": len(answers.labels_N),
        "num_in_top": None if top_N is None else int(top_N.sum()),
        "mean_per_class": scoring.mean_per_class(answers),
        "calibration_error": scoring.calibration_error(answers),
    }


def class_tokens(encoder: Encoder, data_set: PlannedDataSet) -> Tensor:
    """Tokens int64 (K, R, L): K classes by R templates."""
    texts = [
        format_prompt(template, name)
        for name in data_set.class_names
        for template in data_set.templates
    ]
    return encoder.tokenize(texts).view(len(data_set.class_names), len(data_set.templates), -1)
