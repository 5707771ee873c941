"""Contrastive distillation: what the teacher thinks of every image with every prompt of a batch.

Shapes: B replay pairs of the batch.
"""

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from gift_core.settings import Settings


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


def contrastive_distillation(
    student_logits_BB: Tensor, teacher_logits_BB: Tensor, temperature: float
) -> Tensor:
    """Compare the student's similarities with the teacher's by soft cross entropy, both ways.

    Both logits are (B, B), floating: row i is image i against every prompt of the batch, scaled
    by exp(logit_scale). Returns a scalar in nats: temperature^2 * (mean over rows + mean over
    columns); its gradient is that of forward KL(teacher || student). No gradient reaches the
    teacher. Source: docs/method.md steps 2 and 3.
    """
    student_BB = student_logits_BB / temperature
    teacher_BB = teacher_logits_BB.detach() / temperature
    rows = cross_entropy(student_BB, teacher_BB.softmax(dim=1))
    columns = cross_entropy(student_BB.T, teacher_BB.T.softmax(dim=1))
    return temperature**2 * (rows + columns)
