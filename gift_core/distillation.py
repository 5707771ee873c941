"""Contrastive distillation: what the teacher thinks of every image with every prompt of a batch.

Shapes: B replay pairs of the batch, M texts that images are compared with, D features.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, mse_loss


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
