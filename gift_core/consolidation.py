"""Weight consolidation: parameters that matter to the replay pairs are held near the anchor.

Tensors come as sequences, one a parameter tensor, in the order of `trainable_parameters`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gift_core.settings import Settings


class Consolidation(Settings):
    """Which pull holds the student near the weights it started the task from."""

    kind: Literal["adaptive", "l2"] = Field(
        default="adaptive",
        description="adaptive: each weight is held by its Fisher information on the replay pairs "
        "of the step; l2: all weights alike, no replay needed (paper: adaptive)",
    )
    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1e9,
        description="Factor of the pull in the objective, no unit; 0 switches it off (paper: 1)",
    )


def consolidation_penalty(
    current: Sequence[Tensor],
    anchor: Sequence[Tensor],
    fisher: Sequence[Tensor] | None,
    weight: float,
) -> Tensor:
    """Compute weight * sum(F * (current - anchor)^2), in the form to read and to differentiate.

    Equal numbers of tensors of equal shapes, floating; `fisher` None means F = 1. Returns a
    scalar with a graph to `current` only. Raises ValueError when the numbers of tensors differ.
    Source: docs/method.md step 6.
    """
    factors = [torch.ones_like(tensor) for tensor in anchor] if fisher is None else fisher
    terms = [
        (f.detach() * (theta - before.detach()).square()).sum()
        for theta, before, f in zip(current, anchor, factors, strict=True)
    ]
    return weight * torch.stack(terms).sum()


@torch.no_grad()
def add_consolidation_gradient_(
    parameters: Sequence[Tensor],
    anchor: Sequence[Tensor],
    fisher: Sequence[Tensor] | None,
    weight: float,
) -> Tensor:
    """Add the penalty's gradient, 2 * weight * F * (theta - anchor), to every `.grad`.

    The same number as `consolidation_penalty` and its backward, without a graph: besides `fisher`
    one temporary of the parameters' size. A `.grad` that is None starts at zero. `fisher` None
    means F = 1. Returns the penalty, a detached scalar. Source: docs/method.md step 6.
    """
    gradients = [_gradient_or_zeros_(parameter) for parameter in parameters]
    drift = torch._foreach_sub(list(parameters), list(anchor))
    if fisher is None:
        torch._foreach_add_(gradients, drift, alpha=2.0 * weight)
        squared = [torch.linalg.vector_norm(d).square() for d in drift]
    else:
        torch._foreach_addcmul_(gradients, list(fisher), drift, value=2.0 * weight)
        torch._foreach_mul_(drift, drift)
        squared = [torch.dot(f.flatten(), d.flatten()) for f, d in zip(fisher, drift, strict=True)]
    return weight * torch.stack(squared).sum()


def _gradient_or_zeros_(parameter: Tensor) -> Tensor:
    """Return the gradient, making it zero first where backward reached nothing."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
