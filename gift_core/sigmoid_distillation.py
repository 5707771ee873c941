"""Distillation of a sigmoid model: whether each image goes with each prompt, judged alone.

Shapes: B replay pairs of the batch, M texts (B with the prompts of the batch).
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def sigmoid_distillation(
    student_logits_BM: Tensor, teacher_logits_BM: Tensor, temperature: float
) -> Tensor:
    """Compare the student's sigmoids with the teacher's by soft binary cross entropy, both ways.

    Both logits are (B, M), floating: scale * cosine + logit_bias, row i image i against every
    text. Returns a scalar in nats: temperature^2 * (mean over rows + mean over columns) of the sums
    of their entries. With M = B both means are the same number, because an entry is no share of its
    row; it counts twice all the same, so that the gradient of an entry, temperature * 2 * (student
    - teacher) / B, is of the size of `contrastive_distillation`'s. No gradient reaches the teacher.
    Source: docs/method.md, Sigmoid models.
    """
    teacher_BM = (teacher_logits_BM.detach() / temperature).sigmoid()
    entropies = binary_cross_entropy_with_logits(
        student_logits_BM / temperature, teacher_BM, reduction="sum"
    )
    num_images, num_texts = student_logits_BM.shape
    return temperature**2 * (entropies / num_images + entropies / num_texts)
