"""The largest batch that fits: a line through two small ones, a power of two, tried before use."""

from collections.abc import Callable

import pytest
import torch

from tasks.models.batch_fit import MOST_PICTURES, largest_batch

MIB = 2**20


class Card:
    """A card at the border: what a batch takes is a function of its size, and tells when not."""

    def __init__(self, free: int, takes: Callable[[int], int]) -> None:
        self.free, self.takes = free, takes
        self.tried: list[int] = []
        self._peak = 0

    def try_batch(self, num_pictures: int) -> None:
        self.tried.append(num_pictures)
        self._peak = self.takes(num_pictures)
        if self._peak > self.free:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def free_bytes(self) -> int:
        return self.free

    def peak_bytes(self, work: Callable[[], object]) -> int:
        work()
        return self._peak

    def tidy(self) -> None:
        self._peak = 0


def line(num_pictures: int) -> int:
    """100 MiB however many, and 200 MiB a picture."""
    return (100 + 200 * num_pictures) * MIB


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (10_000, 32),  # 85 % are 8500, less 100: 42 pictures
        (3900, 16),  # 3315, less 100: 16.075
        (3850, 8),  # 3272.5, less 100: 15.86
        (1_000_000, MOST_PICTURES),
    ],
)
def test_memory_is_a_line_and_the_answer_a_power_of_two(free: int, expected: int) -> None:
    card = Card(free * MIB, line)
    size, measured = largest_batch(card.try_batch, card)
    assert size == expected
    assert measured == {"free_bytes": free * MIB, "picture_bytes": 200 * MIB}
    assert card.tried == [1, 1, 4, expected]


def test_a_batch_that_does_not_fit_after_all_is_halved() -> None:
    """Some kernels take more for many pictures than the line says."""
    card = Card(10_000 * MIB, lambda n: line(n) * (4 if n > 8 else 1))
    assert largest_batch(card.try_batch, card)[0] == 8
    assert card.tried == [1, 1, 4, 32, 16, 8]


@pytest.mark.parametrize(("free", "expected"), [(200, 1), (350, 1), (500, 2)])
def test_a_card_too_small_for_the_small_ones(free: int, expected: int) -> None:
    card = Card(free * MIB, line)
    assert largest_batch(card.try_batch, card)[0] == expected
