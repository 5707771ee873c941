"""Ranks: what one process holds of a batch, and how rows of all of them come together.

Shapes: b rows of this rank, B rows of all ranks, K texts, L tokens, D features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from gift_core.errors import SettingsError


@dataclass(frozen=True)
class Ranks:
    """A process's number, from 0, and how many processes compute one step together."""

    rank: int = 0
    size: int = 1

    def rows(self, num_rows: int) -> slice:
        """Name the rows of a batch that this rank holds; SettingsError when they do not divide."""
        if num_rows % self.size:
            raise SettingsError(
                f"batch_size: {num_rows} rows cannot be shared evenly by {self.size} processes; "
                f"choose a multiple of {self.size}"
            )
        share = num_rows // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def share_of(self, rows_KL: Tensor) -> Tensor:
        """Take this rank's part of rows that all ranks know, ceil(K / size) of them.

        Where they do not divide, the last row stands in for what is missing, so that every rank
        has as many: `gather_rows(...)[:K]` are then the rows of all, in order.
        """
        if self.size == 1:
            return rows_KL
        share = -(-len(rows_KL) // self.size)
        first = self.rank * share
        numbers = torch.arange(first, first + share, device=rows_KL.device)
        return rows_KL[numbers.clamp(max=len(rows_KL) - 1)]


def gather_rows(rows_bD: Tensor, ranks: Ranks) -> Tensor:
    """Join the rows (b, D) of all ranks, in their order, as (B, D); the same tensor for one rank.

    Every rank computes the same loss from the joined rows, so a row's gradient is complete on the
    rank that it came from. It is multiplied by the number of ranks, because the gradients of the
    weights are then averaged over the ranks.
    """
    if ranks.size == 1:
        return rows_bD
    joined: Tensor = _GatherRows.apply(rows_bD, ranks)
    return joined


def any_rank(flag: bool, ranks: Ranks, device: torch.device) -> bool:
    """Whether the flag is set on any rank; every rank gets the same answer."""
    if ranks.size == 1:
        return flag
    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
    return bool(flags.item())


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_bD: Tensor, ranks: Ranks) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.ranks, ctx.num_rows = ranks, len(rows_bD)
        parts = [torch.empty_like(rows_bD) for _ in range(ranks.size)]
        distributed.all_gather(parts, rows_bD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        first = ctx.ranks.rank * ctx.num_rows
        return ctx.ranks.size * gradients[0][first : first + ctx.num_rows], None
