"""Splits made of splits: labels by prompts, pictures found again, memories that may shrink."""

from collections.abc import Sequence

import numpy as np

from tasks.data.splits import Split
from tasks.data.unions import evenly_drawn, union_of


class Named:
    """Images whose content is their name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, index: int) -> tuple[bytes, str]:
        return f"{self.name}{index}".encode(), self.name


def split(name: str, labels: Sequence[int]) -> Split:
    return Split(np.array(labels, dtype=np.int64), None, Named(name), name)


def read(union: Split) -> list[str]:
    return [union.images.read(index)[0].decode() for index in range(len(union))]


def test_one_split_is_given_back_as_it_is() -> None:
    part = (split("a", [0, 1]), ("x", "y"))
    assert union_of([part]) is part


def test_classes_are_told_by_their_prompts_and_pictures_by_their_place() -> None:
    first, second = (split("a", [1, 0, 1]), ("x", "y")), (split("b", [0, 1]), ("y", "z"))
    union, prompts = union_of([first, second])
    assert prompts == ("x", "y", "z")
    assert union.labels_N.tolist() == [1, 0, 1, 1, 2]
    assert read(union) == ["a0", "a1", "a2", "b0", "b1"]


def test_a_choice_takes_the_classes_in_turn() -> None:
    labels = [0] * 6 + [1] * 2 + [2] * 4
    chosen = evenly_drawn(split("a", labels), 7, seed=1)
    assert sorted(chosen.labels_N.tolist()) == [0, 0, 0, 1, 1, 2, 2]
    assert len(set(read(chosen))) == 7
    for name, label in zip(read(chosen), chosen.labels_N.tolist(), strict=True):
        assert labels[int(name[1:])] == label


def test_a_smaller_choice_is_the_beginning_of_a_larger_one() -> None:
    part = split("a", [0, 1] * 10)
    large, small = evenly_drawn(part, 9, 3), evenly_drawn(part, 4, 3)
    assert read(small) == read(large)[:4]
    assert read(evenly_drawn(part, 9, 4)) != read(large)
    assert len(evenly_drawn(part, 100, 3)) == 20
