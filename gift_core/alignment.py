"""Image-text alignment: every replay image belongs to its own prompt, whatever the teacher says.

Shapes: B replay pairs of the batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def prompt_targets(prompt_ids_B: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the alignment matrix: pairs with the same prompt share the probability evenly.

    `prompt_ids_B` is (B,), integer; equal numbers mean equal prompts. Returns (B, B) of `dtype`,
    symmetric, each row summing to 1. Source: docs/method.md step 4.
    """
    same_BB = (prompt_ids_B[:, None] == prompt_ids_B[None, :]).to(dtype)
    return same_BB / same_BB.sum(dim=1, keepdim=True)


def image_text_alignment(logits_BB: Tensor, prompt_ids_B: Tensor, label_smoothing: float) -> Tensor:
    """Compare the student's similarities with the alignment matrix by cross entropy, both ways.

    `logits_BB` is (B, B), floating, scaled by exp(logit_scale); `prompt_ids_B` is (B,), integer;
    `label_smoothing` is a share from 0 to below 1. Returns a scalar in nats, mean over rows plus
    mean over columns, without the alignment's weight. Source: docs/method.md step 4.
    """
    targets_BB = prompt_targets(prompt_ids_B, logits_BB.dtype)
    rows = cross_entropy(logits_BB, targets_BB, label_smoothing=label_smoothing)
    columns = cross_entropy(logits_BB.T, targets_BB.T, label_smoothing=label_smoothing)
    return rows + columns
