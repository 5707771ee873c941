"""How many pictures a call fit into memory: measured on small batches, then tried."""

from collections.abc import Callable
from typing import Protocol

import torch

MEASURED = (1, 4)
"""Batches whose memory is measured: two points of a line, small enough for any card in use."""
USED_SHARE = 0.85
"""Of the memory that is free; the rest is for what lies in pieces, and for a teacher that looks."""
MOST_PICTURES = 64
"""With so many a GPU computes and nothing else: more gain nothing, and leave less to overlap."""


class Memory(Protocol):
    """The memory that batches are made in."""

    def free_bytes(self) -> int:
        """Bytes that may still be taken."""

    def peak_bytes(self, work: Callable[[], object]) -> int:
        """Do a piece of work; the most bytes it held at once, beyond what was held before."""

    def tidy(self) -> None:
        """Give back what a failed batch left."""


class CudaMemory:
    """A CUDA device's memory as torch's allocator sees it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free_bytes(self) -> int:
        """What the card has free, and what the allocator holds without using it."""
        free, _ = torch.cuda.mem_get_info(self._device)
        reserved = torch.cuda.memory_reserved(self._device)
        return free + reserved - torch.cuda.memory_allocated(self._device)

    def peak_bytes(self, work: Callable[[], object]) -> int:
        """Do a piece of work; the most bytes that tensors took, beyond those before."""
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        return torch.cuda.max_memory_allocated(self._device) - before

    def tidy(self) -> None:
        """Empty the allocator's cache."""
        torch.cuda.empty_cache()


def largest_batch(
    try_batch: Callable[[int], object], memory: Memory
) -> tuple[int, dict[str, float]]:
    """The largest power of two, up to MOST_PICTURES, of which a batch fits; and what was measured.

    Memory is a line in the number of pictures; the number it foretells is tried, and halved while
    memory runs out. 1 is not refused here: the generator has ways to save memory.
    """
    measured: dict[str, float] = {}
    try:
        try_batch(1)  # what is set up at the first call is not a batch's
        measured["free_bytes"] = memory.free_bytes()
        few, more = MEASURED
        low, high = (memory.peak_bytes(lambda n=n: try_batch(n)) for n in MEASURED)
        measured["picture_bytes"] = max(1.0, (high - low) / (more - few))
        rest = USED_SHARE * measured["free_bytes"] - (low - few * measured["picture_bytes"])
        size = _power_of_two(rest / measured["picture_bytes"])
    except torch.OutOfMemoryError:
        size = MEASURED[-1] // 2
    memory.tidy()
    while size > 1 and not _fits(try_batch, size):
        memory.tidy()
        size //= 2
    memory.tidy()
    return size, measured


def _power_of_two(number: float) -> int:
    """The largest power of two up to a number, between 1 and MOST_PICTURES."""
    return 1 << (int(min(max(number, 1), MOST_PICTURES)).bit_length() - 1)


def _fits(try_batch: Callable[[int], object], size: int) -> bool:
    try:
        try_batch(size)
    except torch.OutOfMemoryError:
        return False
    return True
