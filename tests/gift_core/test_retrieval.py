"""Retrieval among pairs of equal prompts, by hand in two dimensions."""

import math

import pytest
import torch
from torch import Tensor

from gift_core import retrieval
from gift_core.retrieval import retrieve


def unit(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_equal_prompts_all_count_as_right(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts at 0, 60 and 120 degrees; pictures 0 and 1 share the first, 2 and 3 have one each.

    Pictures at 5, 20, 51 and 70 find prompts 0, 0, 1 and 1: the last is wrong. Prompts find the
    pictures at 5, 51 and 70: all right, though the last picture itself misses its prompt.
    """
    monkeypatch.setattr(retrieval, "ROWS", rows)
    found = retrieve(unit(5, 20, 51, 70), unit(0, 60, 120), torch.tensor([0, 0, 1, 2]))
    assert found.prompts_N.tolist() == [0, 0, 1, 1]
    assert found.pictures_P.tolist() == [0, 2, 3]
    assert (found.num_pictures_right, found.num_prompts_right) == (3, 3)


def test_what_finds_another_prompts_picture_is_wrong() -> None:
    found = retrieve(unit(80, 10), unit(0, 90), torch.tensor([0, 1]))
    assert (found.num_pictures_right, found.num_prompts_right) == (0, 0)
