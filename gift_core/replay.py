"""The replay side of a step: B synthetic pairs, and the two losses on them.

Shapes: B pairs, b of them on this rank, P distinct prompts of the batch, M texts that are known, D
features, C x H x W an image's channels, height and width, L tokens of a prompt.
"""

from dataclasses import dataclass

from torch import Tensor

from gift_core.alignment import image_text_alignment
from gift_core.distillation import (
    contrastive_distillation,
    feature_distillation,
    reverse_distillation,
)
from gift_core.engine import Engine
from gift_core.errors import DataError, SettingsError
from gift_core.features import DualEncoder, PairFeatures, logit_bias_of, similarity
from gift_core.objective import Distillation, Objective
from gift_core.sigmoid_distillation import sigmoid_distillation


@dataclass(frozen=True, eq=False)
class ReplayBatch:
    """Synthetic images, the prompts that they were generated from, and what the teacher saw.

    `images_bCHW` is floating, preprocessed for the model: all pairs' images, or this rank's rows
    of them where several compute a step. The rest is the whole batch's: `prompt_tokens_PL` holds
    each distinct prompt once, int64; `prompt_ids_B` is, for each pair, the row of its prompt in
    `prompt_tokens_PL`, int64; `teacher` holds the frozen teacher's unit vectors of the B pairs, and
    `known_texts_MD` those of every prompt known before the task, where these are distilled on.
    Raises DataError when the numbers of pairs differ.
    """

    images_bCHW: Tensor
    prompt_tokens_PL: Tensor
    prompt_ids_B: Tensor
    teacher: PairFeatures
    known_texts_MD: Tensor | None = None

    def __post_init__(self) -> None:
        found = {
            "prompt_ids": len(self.prompt_ids_B),
            "teacher image features": len(self.teacher.image_features_BD),
            "teacher text features": len(self.teacher.text_features_BD),
        }
        if len(set(found.values())) != 1:
            counts = ", ".join(f"{count} {name}" for name, count in found.items())
            raise DataError(f"replay batch: {counts}; give as many of each as there are pairs")

    def check(self, num_ranks: int) -> None:
        """DataError unless this rank's images are an even share of the batch's pairs."""
        if len(self.images_bCHW) * num_ranks != len(self.prompt_ids_B):
            raise DataError(
                f"replay batch: {len(self.images_bCHW)} images on each of {num_ranks} ranks but "
                f"{len(self.prompt_ids_B)} pairs; give one image a pair, evenly shared"
            )


@dataclass(frozen=True, eq=False)
class ReplayLosses:
    """The two replay losses times their weights, and the share of images that find their prompt.

    All scalars; `distillation` and `alignment` carry the graph, `accuracy` is in percent.
    """

    distillation: Tensor
    alignment: Tensor
    accuracy: Tensor


def encode_pairs(engine: Engine, replay: ReplayBatch) -> PairFeatures:
    """Encode the pairs as unit vectors; each distinct prompt goes through the student once.

    Source: docs/method.md step 2.
    """
    images_BD, prompts_PD = engine.encode(replay.images_bCHW, replay.prompt_tokens_PL)
    return PairFeatures(images_BD, prompts_PD[replay.prompt_ids_B])


def replay_losses(
    student: DualEncoder, replay: ReplayBatch, objective: Objective, engine: Engine
) -> ReplayLosses:
    """Compute distillation and image-text alignment of one batch, weighted.

    The teacher's logits use the student's logit_scale, which is frozen and so the teacher's too.
    A model with a logit_bias is distilled on its sigmoids. Raises SettingsError when known texts
    are distilled on and the batch has none. Source: docs/method.md steps 2 to 4, Sigmoid models.
    """
    replay.check(engine.ranks.size)
    scale, bias = student.logit_scale.detach().exp(), logit_bias_of(student)
    encoded = encode_pairs(engine, replay)
    dtype = encoded.image_features_BD.dtype
    teacher = PairFeatures(
        replay.teacher.image_features_BD.to(dtype), replay.teacher.text_features_BD.to(dtype)
    )
    pairs = _learning_side(encoded, teacher, objective.distillation)
    student_logits_BB = similarity(pairs.image_features_BD, pairs.text_features_BD, scale, bias)
    if objective.distillation.texts == "known":
        texts_MD = _known_texts(replay).to(dtype)
        student_BM = similarity(encoded.image_features_BD, texts_MD, scale, bias)
        teacher_BM = similarity(teacher.image_features_BD, texts_MD, scale, bias)
        distillation = _compared(student_BM, teacher_BM, objective.distillation, bias)
    elif objective.distillation.kind == "feature-mse":
        distillation = feature_distillation(
            encoded.image_features_BD, teacher.image_features_BD
        ) + feature_distillation(encoded.text_features_BD, teacher.text_features_BD)
    else:
        teacher_logits_BB = similarity(
            teacher.image_features_BD, teacher.text_features_BD, scale, bias
        )
        distillation = _compared(student_logits_BB, teacher_logits_BB, objective.distillation, bias)
    alignment = image_text_alignment(
        student_logits_BB, replay.prompt_ids_B, objective.alignment.label_smoothing
    )
    matched_B = replay.prompt_ids_B[student_logits_BB.detach().argmax(dim=1)] == replay.prompt_ids_B
    if engine.ranks.size > 1 and pairs is not encoded:  # a backward pass must reach every weight
        unused = encoded.image_features_BD.sum() + encoded.text_features_BD.sum()
        distillation = distillation + 0.0 * unused
    return ReplayLosses(
        distillation=objective.distillation.weight * distillation,
        alignment=objective.alignment.weight * alignment,
        accuracy=100.0 * matched_B.to(student_logits_BB.dtype).mean(),
    )


def _learning_side(
    student: PairFeatures, teacher: PairFeatures, settings: Distillation
) -> PairFeatures:
    """The student's features, with the teacher's in place of the tower that does not learn."""
    if settings.kind == "images-only":
        return PairFeatures(student.image_features_BD, teacher.text_features_BD)
    if settings.kind == "texts-only":
        return PairFeatures(teacher.image_features_BD, student.text_features_BD)
    return student


def _known_texts(replay: ReplayBatch) -> Tensor:
    """The teacher's texts of all that was known: only images learn from a comparison with them."""
    if replay.known_texts_MD is None:
        raise SettingsError(
            "objective.distillation: texts is known, but the replay batch has no known texts; "
            "give it the teacher's features of them"
        )
    return replay.known_texts_MD


def _compared(
    student_BM: Tensor, teacher_BM: Tensor, settings: Distillation, bias: Tensor | None
) -> Tensor:
    """By the kind that is asked for; the usual one on sigmoids where the model has a bias."""
    if settings.kind == "reverse-kl":
        compare = reverse_distillation  # a softmax, in which a bias cancels
    else:
        compare = contrastive_distillation if bias is None else sigmoid_distillation
    return compare(student_BM, teacher_BM, settings.temperature)
