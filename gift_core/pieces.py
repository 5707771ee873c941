"""Many large tensors worked on piece by piece: what fits the cache is fast, and sums stay exact."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CPU_PIECE, DEVICE_PIECE = 2**17, 2**26
"""Numbers worked on at a time: half a megabyte stays in a processor's cache; on another device only
the temporaries are bounded."""


@dataclass(frozen=True, eq=False)
class Group:
    """Pieces of several tensors, as many as fit the bound, for one call of each foreach function.

    `columns` has a list of views for each of the tensors that go together (weight, gradient, ...);
    working on a view changes the whole. `owners` says, piece by piece, which row it was cut from.
    """

    owners: list[int]
    columns: tuple[list[Tensor], ...]


def groups_of(rows: Sequence[tuple[Tensor, ...]]) -> Iterator[Group]:
    """Cut rows of equally shaped tensors into pieces, and gather pieces up to the bound."""
    owners: list[int] = []
    pieces: list[tuple[Tensor, ...]] = []
    waiting = 0
    for owner, row in enumerate(rows):
        bound = CPU_PIECE if row[0].device.type == "cpu" else DEVICE_PIECE
        flat = all(tensor.is_contiguous() for tensor in row)
        columns = [torch.split(tensor.view(-1), bound) if flat else (tensor,) for tensor in row]
        for piece in zip(*columns, strict=True):
            if waiting and waiting + piece[0].numel() > bound:
                yield _group(owners, pieces)
                owners, pieces, waiting = [], [], 0
            owners.append(owner)
            pieces.append(piece)
            waiting += piece[0].numel()
    if pieces:
        yield _group(owners, pieces)


def sums_of_squares(tensors: Sequence[Tensor]) -> Tensor:
    """Sum the squares of each tensor: (number of tensors,), of their dtype and on their device.

    By pieces: over 25 million numbers in one go, a CPU's fp32 sum is wrong by three parts in a
    thousand.
    """
    owners: list[int] = []
    norms: list[Tensor] = []
    for group in groups_of([(tensor,) for tensor in tensors]):
        owners += group.owners
        norms += torch._foreach_norm(group.columns[0])
    squares = torch.stack(norms).square()
    return squares.new_zeros(len(tensors)).index_add(
        0, torch.tensor(owners, device=squares.device), squares
    )


def _group(owners: list[int], pieces: list[tuple[Tensor, ...]]) -> Group:
    return Group(owners, tuple(list(column) for column in zip(*pieces, strict=True)))
