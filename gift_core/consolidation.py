"""Weight consolidation: parameters that matter to the replay pairs are held near the anchor.

Tensors come as sequences, one a parameter tensor, in the order of `trainable_parameters`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gift_core.pieces import groups_of, sums_of_squares


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
def consolidate_(
    parameters: Sequence[Tensor], anchor: Sequence[Tensor], weight: float, repeats: float = 1.0
) -> Tensor:
    """Turn the replay gradient g in every `.grad` into repeats * (g + 2 * weight * F * drift).

    F = g * g / mean(g * g), the normalised Fisher diagonal of each parameter tensor, and drift =
    theta - anchor: the gradient of `consolidation_penalty`, without a graph and without a copy of
    F. A gradient that is None or all zero holds nothing. Returns the penalty, weight * sum(F *
    drift^2), a detached scalar. Source: docs/method.md steps 5 and 6.
    """
    rows = [
        (theta, before, theta.grad)
        for theta, before in zip(parameters, anchor, strict=True)
        if theta.grad is not None
    ]
    gradients = [row[2] for row in rows]
    sizes = torch.tensor([g.numel() for g in gradients], device=gradients[0].device)
    means = sums_of_squares(gradients) / sizes
    inverse = torch.where(means > 0.0, means, torch.inf).reciprocal()
    factors = (2.0 * weight * inverse).unbind()
    penalties = []
    for group in groups_of(rows):
        thetas, befores, replayed = group.columns
        pulls = torch._foreach_sub(thetas, befores)
        torch._foreach_mul_(pulls, replayed)
        penalties.append(_weighted(torch._foreach_norm(pulls), inverse, group.owners))
        torch._foreach_mul_(pulls, replayed)
        torch._foreach_mul_(pulls, [factors[owner] for owner in group.owners])
        torch._foreach_add_(replayed, pulls)
        if repeats != 1.0:
            torch._foreach_mul_(replayed, repeats)
    return weight * torch.stack(penalties).sum()


def _weighted(norms: Sequence[Tensor], inverse: Tensor, owners: Sequence[int]) -> Tensor:
    """Sum the squared norms of pieces, each divided by the mean square of its whole tensor."""
    return torch.dot(torch.stack(list(norms)).square(), inverse[list(owners)])


@torch.no_grad()
def add_consolidation_gradient_(
    parameters: Sequence[Tensor],
    anchor: Sequence[Tensor],
    weight: float,
    fisher: Sequence[Tensor] | None = None,
) -> Tensor:
    """Add the gradient of a pull that stands, 2 * weight * F * (theta - anchor), to every `.grad`.

    The same number as `consolidation_penalty` and its backward, without a graph; `fisher` None
    means F = 1. A `.grad` that is None starts at zero. Returns the penalty, a detached scalar.
    Raises ValueError when the numbers of tensors differ. Source: docs/method.md step 6.
    """
    rows: list[tuple[Tensor, ...]] = [
        (theta, before, _gradient_or_zeros_(theta))
        for theta, before in zip(parameters, anchor, strict=True)
    ]
    if fisher is not None:
        rows = [(*row, factor) for row, factor in zip(rows, fisher, strict=True)]
    penalties = []
    for group in groups_of(rows):
        thetas, befores, gradients, *factors = group.columns
        drifts = torch._foreach_sub(thetas, befores)
        pulls = torch._foreach_mul(drifts, factors[0]) if factors else drifts
        torch._foreach_add_(gradients, pulls, alpha=2.0 * weight)
        if factors:
            penalties += [torch.sum(d * p) for d, p in zip(drifts, pulls, strict=True)]
        else:
            penalties.append(torch.stack(torch._foreach_norm(drifts)).square().sum())
    return weight * torch.stack(penalties).sum()


def _gradient_or_zeros_(parameter: Tensor) -> Tensor:
    """Return the gradient, making it zero first where backward reached nothing."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
