"""Averages of weights: along a run (a weight ensemble) and between two models (WiSE-FT).

Tensors come as sequences, one a parameter tensor, in the order of `trainable_parameters`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from gift_core.restoring import copy_saved_


@torch.no_grad()
def interpolate(
    origin: Sequence[Tensor], learnt: Sequence[Tensor], share: float
) -> tuple[Tensor, ...]:
    """Compute share * learnt + (1 - share) * origin, tensor by tensor; 0 is origin, 1 learnt.

    Equal numbers of tensors of equal shapes, floating. Raises ValueError when the numbers differ.
    Source: docs/method.md, WiSE-FT.
    """
    return tuple(torch.lerp(a, b, share) for a, b in zip(origin, learnt, strict=True))


@torch.no_grad()
def running_average_(averages: Sequence[Tensor], values: Sequence[Tensor], count: int) -> None:
    """Take `values` into averages of `count` earlier ones, in place.

    Equal numbers of tensors of equal shapes. Raises ValueError when the numbers differ.
    """
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value.to(average.dtype), 1.0 / (count + 1))


@dataclass(eq=False)
class RunningMean:
    """A mean of equally shaped tensors that grows by one set at a time, and can be saved."""

    tensors: tuple[Tensor, ...]
    count: int

    @classmethod
    def starting_with(cls, values: Sequence[Tensor]) -> Self:
        """A mean of one set, copied."""
        return cls(tuple(value.detach().clone() for value in values), 1)

    @classmethod
    def empty(cls, like: Sequence[Tensor]) -> Self:
        """A mean of nothing yet, zero."""
        return cls(tuple(torch.zeros_like(tensor) for tensor in like), 0)

    def see_(self, values: Sequence[Tensor]) -> None:
        """Take one more set in."""
        running_average_(self.tensors, values, self.count)
        self.count += 1

    def saved(self, name: str, keys: Sequence[str]) -> dict[str, Tensor]:
        """Views by name, for `restore_`; `keys` name the tensors."""
        named = {f"{name}.{key}": t for key, t in zip(keys, self.tensors, strict=True)}
        return {f"{name}_count": torch.tensor(self.count), **named}

    def restore_(self, name: str, keys: Sequence[str], saved: Mapping[str, Tensor]) -> None:
        """Go on from what `saved` gave; KeyError or DataError when it is another run's."""
        for key, tensor in zip(keys, self.tensors, strict=True):
            copy_saved_(tensor, saved[f"{name}.{key}"], f"{name}.{key}")
        self.count = int(saved[f"{name}_count"].item())
