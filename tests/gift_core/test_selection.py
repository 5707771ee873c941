"""The teacher's choice, worked out by hand in two dimensions."""

import math

import pytest
import torch

from gift_core.selection import Selection, choose, confidence, most_confident

NONE_KEPT = torch.zeros(0, 2)


def unit(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_confidence_is_the_softmax_at_the_own_prompt() -> None:
    """Cosines of a picture at 0 degrees with texts at 0 and 90 are 1 and 0: e^2 / (e^2 + 1)."""
    found = confidence(unit(0, 90), unit(0, 90), torch.tensor([0, 0]), 2.0)
    assert found.tolist() == pytest.approx([math.e**2 / (math.e**2 + 1), 1 / (math.e**2 + 1)])


def test_the_surest_is_kept_and_the_first_of_equals() -> None:
    assert choose(unit(0, 10, 20), [0.2, 0.9, 0.4], NONE_KEPT, Selection()) == (
        "outranked",
        "kept",
        "outranked",
    )
    assert choose(unit(0, 10), [0.5, 0.5], NONE_KEPT, Selection())[0] == "kept"


def test_unsure_pictures_and_near_duplicates_are_not_eligible() -> None:
    """The cosine of 10 degrees is 0.985, of 20 degrees 0.940."""
    selection = Selection(min_confidence=0.3, max_similarity=0.95)
    found = choose(unit(10, 20, 30), [0.9, 0.4, 0.2], unit(0), selection)
    assert found == ("duplicate", "kept", "unsure")
    assert "kept" not in choose(unit(0, 5), [0.9, 0.9], unit(0), selection)


def test_the_teacher_is_asked_only_where_something_is_set() -> None:
    assert not Selection().asks_teacher
    assert Selection(candidates=2).asks_teacher
    assert Selection(max_similarity=0.9).asks_teacher


def test_the_best_of_each_class_come_before_any_classs_second() -> None:
    """Class 0 has images 0, 1, 2 and class 1 has 3, 4; by confidence 0, 1, 4, 3, 2."""
    sure, labels = [0.9, 0.8, 0.1, 0.2, 0.5], [0, 0, 0, 1, 1]
    assert most_confident(sure, labels, 1) == (0,)
    assert most_confident(sure, labels, 2) == (0, 4)
    assert most_confident(sure, labels, 3) == (0, 1, 4)
    assert most_confident(sure, labels, 4) == (0, 1, 3, 4)


def test_a_class_that_runs_out_leaves_its_share_to_the_others() -> None:
    assert most_confident([0.1, 0.5, 0.4, 0.3], [0, 1, 1, 1], 3) == (0, 1, 2)
    assert most_confident([0.1, 0.5], [0, 1], 10) == (0, 1)
    assert most_confident([0.5, 0.5, 0.5], [0, 0, 0], 2) == (0, 1), "the first of equals"
