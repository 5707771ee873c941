"""Fisher information in the scale of the method: of mean 1 in every parameter tensor."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def normalised_fisher(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Compute g * g / mean(g * g) for every tensor: like its gradient in shape and dtype, mean 1.

    An all-zero gradient gives zeros, not NaN: it holds nothing. Source: docs/method.md step 5.
    """
    return [unit_mean(gradient.detach().square()) for gradient in gradients]


def unit_mean(squares: Tensor) -> Tensor:
    """Divide by the mean; zeros stay zeros. The test is on the device: no transfer a tensor."""
    mean = squares.mean()
    return squares / torch.where(mean > 0.0, mean, torch.ones_like(mean))


def summed_fisher(fishers: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> list[Tensor]:
    """Add Fisher diagonals of several tasks, each divided by its mean over the whole model.

    The order is that of `names`; unlike `normalised_fisher` it keeps how tensors compare with one
    another, which is what EWC holds by. Raises KeyError when a diagonal lacks a name. Source:
    docs/method.md, EWC.
    """
    sums = [torch.zeros_like(fishers[0][name]) for name in names]
    for fisher in fishers:
        tensors = [fisher[name] for name in names]
        total = sum(float(tensor.double().sum()) for tensor in tensors)
        mean = total / sum(tensor.numel() for tensor in tensors)
        factor = 1.0 / mean if mean > 0.0 else 0.0
        sums = [kept + factor * tensor for kept, tensor in zip(sums, tensors, strict=True)]
    return sums
