"""The replay side of a step: B synthetic pairs, and the two losses on them.

Shapes: B pairs, P distinct prompts of the batch, D features, C x H x W an image's channels, height
and width, L tokens of a prompt.
"""

from dataclasses import dataclass

from torch import Tensor

from gift_core.alignment import image_text_alignment
from gift_core.distillation import contrastive_distillation
from gift_core.errors import DataError
from gift_core.features import DualEncoder, PairFeatures, encode_images, encode_texts, similarity
from gift_core.objective import Objective


@dataclass(frozen=True, eq=False)
class ReplayBatch:
    """Synthetic images, the prompts that they were generated from, and what the teacher saw.

    `images_BCHW` is floating, preprocessed for the model; `prompt_tokens_PL` holds each distinct
    prompt of the batch once, int64; `prompt_ids_B` is, for each image, the row of its prompt in
    `prompt_tokens_PL`, int64; `teacher` holds the frozen teacher's unit vectors of the B pairs.
    Raises DataError when the numbers of pairs differ.
    """

    images_BCHW: Tensor
    prompt_tokens_PL: Tensor
    prompt_ids_B: Tensor
    teacher: PairFeatures

    def __post_init__(self) -> None:
        found = {
            "images": len(self.images_BCHW),
            "prompt_ids": len(self.prompt_ids_B),
            "teacher image features": len(self.teacher.image_features_BD),
            "teacher text features": len(self.teacher.text_features_BD),
        }
        if len(set(found.values())) != 1:
            counts = ", ".join(f"{count} {name}" for name, count in found.items())
            raise DataError(f"replay batch: {counts}; give as many of each as there are pairs")


@dataclass(frozen=True, eq=False)
class ReplayLosses:
    """The two replay losses times their weights, and the share of images that find their prompt.

    All scalars; `distillation` and `alignment` carry the graph, `accuracy` is in percent.
    """

    distillation: Tensor
    alignment: Tensor
    accuracy: Tensor


def encode_pairs(student: DualEncoder, replay: ReplayBatch) -> PairFeatures:
    """Encode the pairs as unit vectors; each distinct prompt goes through the student once.

    Source: docs/method.md step 2.
    """
    text_features_PD = encode_texts(student, replay.prompt_tokens_PL)
    return PairFeatures(
        image_features_BD=encode_images(student, replay.images_BCHW),
        text_features_BD=text_features_PD[replay.prompt_ids_B],
    )


def replay_losses(student: DualEncoder, replay: ReplayBatch, objective: Objective) -> ReplayLosses:
    """Compute contrastive distillation and image-text alignment of one batch, weighted.

    The teacher's logits use the student's logit_scale, which is frozen and so the teacher's too.
    Source: docs/method.md steps 2 to 4.
    """
    scale = student.logit_scale.detach().exp()
    pairs = encode_pairs(student, replay)
    teacher_image_features_BD = replay.teacher.image_features_BD.to(pairs.image_features_BD.dtype)
    teacher_text_features_BD = replay.teacher.text_features_BD.to(pairs.text_features_BD.dtype)
    student_logits_BB = similarity(pairs.image_features_BD, pairs.text_features_BD, scale)
    teacher_logits_BB = similarity(teacher_image_features_BD, teacher_text_features_BD, scale)
    distillation = contrastive_distillation(
        student_logits_BB, teacher_logits_BB, objective.distillation.temperature
    )
    alignment = image_text_alignment(
        student_logits_BB, replay.prompt_ids_B, objective.alignment.label_smoothing
    )
    matched_B = replay.prompt_ids_B[student_logits_BB.detach().argmax(dim=1)] == replay.prompt_ids_B
    return ReplayLosses(
        distillation=objective.distillation.weight * distillation,
        alignment=objective.alignment.weight * alignment,
        accuracy=100.0 * matched_B.to(student_logits_BB.dtype).mean(),
    )
