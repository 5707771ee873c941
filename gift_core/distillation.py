"""Contrastive distillation: what the teacher thinks of every image with every prompt of a batch.

Shapes: B replay pairs of the batch, M texts that images are compared with, D features.
"""

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, mse_loss

from gift_core.settings import Settings, added


class Distillation(Settings):
    """How strongly, and how softly, the student imitates the teacher on replay pairs."""

    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1e6,
        description="Factor of the contrastive distillation in the objective, no unit; "
        "0 switches it off (paper: 1)",
    )
    temperature: float = Field(
        default=2.0,
        gt=0.0,
        le=1e3,
        description="Both sides' logits are divided by it before the softmax, no unit; larger "
        "values look more at the unlikely pairs (paper: 2)",
    )
    kind: Literal["contrastive", "images-only", "texts-only", "feature-mse", "reverse-kl"] = added(
        "contrastive",
        description="contrastive: both towers; images-only, texts-only: the other tower is the "
        "teacher's; feature-mse: squared difference of features; reverse-kl: KL of student to "
        "teacher (paper: contrastive, the others are its ablations)",
    )
    texts: Literal["batch", "known"] = added(
        "batch",
        description="What images are compared with. batch: the prompts of the batch; known: the "
        "teacher's features of every prompt known before the task (paper: batch; ZSCL and LwF: "
        "known)",
    )

    @model_validator(mode="after")
    def _known_texts_have_logits(self) -> Self:
        """Refuse kinds that say nothing about a fixed list of texts."""
        if self.texts == "known" and self.kind not in ("contrastive", "reverse-kl"):
            raise ValueError(
                f"distillation.kind: {self.kind} compares the pairs of a batch; with texts: known "
                "choose contrastive or reverse-kl"
            )
        return self


def contrastive_distillation(
    student_logits_BM: Tensor, teacher_logits_BM: Tensor, temperature: float
) -> Tensor:
    """Compare the student's similarities with the teacher's by soft cross entropy, both ways.

    Both logits are (B, M), floating, M = B with the prompts of the batch: row i is image i against
    every text, scaled by exp(logit_scale). Returns a scalar in nats: temperature^2 * (mean over
    rows + mean over columns); its gradient is that of forward KL(teacher || student). No gradient
    reaches the teacher. Source: docs/method.md steps 2 and 3.
    """
    student_BM = student_logits_BM / temperature
    teacher_BM = teacher_logits_BM.detach() / temperature
    rows = cross_entropy(student_BM, teacher_BM.softmax(dim=1))
    columns = cross_entropy(student_BM.T, teacher_BM.T.softmax(dim=1))
    return temperature**2 * (rows + columns)


def reverse_distillation(
    student_logits_BM: Tensor, teacher_logits_BM: Tensor, temperature: float
) -> Tensor:
    """Compute temperature^2 * KL(student || teacher), mean over rows plus mean over columns.

    Shapes and units as in `contrastive_distillation`. Source: docs/method.md, ablations.
    """
    student_BM = student_logits_BM / temperature
    teacher_BM = teacher_logits_BM.detach() / temperature
    sides = ((student_BM, teacher_BM), (student_BM.T, teacher_BM.T))
    rows, columns = (
        kl_div(
            teacher.log_softmax(dim=1),
            student.log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        for student, teacher in sides
    )
    return temperature**2 * (rows + columns)


def feature_distillation(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Compute the mean squared difference of features (B, D): a scalar, no unit.

    Source: docs/method.md, ablations.
    """
    return mse_loss(student_BD, teacher_BD.detach())
