"""Measures of a classifier's answers, worked out by hand; another task's classes on top."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gift_core.scoring import (
    NUM_BINS,
    Answers,
    ClassesSeen,
    answer,
    calibration_error,
    joined,
    mean_per_class,
)


def answers(labels: list[int], predicted: list[int], confidence: list[float]) -> Answers:
    sure_N = torch.tensor(confidence, dtype=torch.float64)
    return Answers(torch.tensor(labels), torch.tensor(predicted), None, sure_N)


def unit(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_an_answer_is_the_most_similar_class_and_its_share_of_the_softmax() -> None:
    """A picture at 10 degrees, classes at 0 and 90, scale 2: cosines 0.985 and 0.174."""
    found = answer(unit(10), unit(0, 90), torch.tensor([1]), 2.0)
    chances = [math.exp(2 * math.cos(math.radians(d))) for d in (10, 80)]
    assert found.predicted_N.tolist() == [0]
    assert found.right_N.tolist() == [False]
    assert found.confidence_N.tolist() == pytest.approx([chances[0] / sum(chances)])
    assert found.in_top_N is None, "two classes have no five most similar ones"


def test_top_five_are_counted_from_five_classes_on() -> None:
    """A picture at 0 degrees: the classes in order of similarity are 0, 20, 40, 60, 80, 100."""
    classes = unit(100, 0, 20, 40, 60, 80)
    labels = torch.tensor([0, 5, 1])
    found = answer(unit(0, 0, 0), classes, labels, 1.0)
    assert found.in_top_N is not None
    assert found.in_top_N.tolist() == [False, True, True]
    both = joined([found, answer(unit(90), classes, torch.tensor([1]), 1.0)])
    assert both.in_top_N is not None
    assert both.in_top_N.tolist() == [False, True, True, False]
    assert both.labels_N.tolist() == [0, 5, 1, 1]


def test_mean_per_class_weighs_classes_alike() -> None:
    """Class 0: 1 of 1; class 2: 1 of 4; class 1 has no image. (100 + 25) / 2, not 40."""
    found = answers([0, 2, 2, 2, 2], [0, 2, 0, 0, 1], [0.5] * 5)
    assert mean_per_class(found) == pytest.approx(62.5)


def test_calibration_worked_out_by_hand() -> None:
    """Bins of 1/15: 0.95 and 1.0 share the last one; 0.6 ends bin 9, 0.61 begins bin 10.

    Last bin: accuracy 0.5, confidence 0.975, off by 0.475, two of four images. Bin 9: right with
    0.6, off by 0.4. Bin 10: wrong with 0.61, off by 0.61.
    0.475 * 2/4 + 0.4 * 1/4 + 0.61 * 1/4 = 0.49 of an accuracy: 49 points.
    """
    found = answers([0, 1, 0, 1], [0, 0, 0, 0], [0.95, 1.0, 0.6, 0.61])
    assert calibration_error(found) == pytest.approx(49.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.001, 1.0)),
        min_size=1,
        max_size=30,
    )
)
def test_calibration_against_a_naive_loop(images: list[tuple[int, int, float]]) -> None:
    total = 0.0
    for number in range(NUM_BINS):
        inside = [each for each in images if math.ceil(each[2] * NUM_BINS) - 1 == number]
        if inside:
            right = sum(label == predicted for label, predicted, _ in inside) / len(inside)
            sure = sum(confidence for *_, confidence in inside) / len(inside)
            total += abs(right - sure) * len(inside) / len(images)
    labels, predicted, confidence = (list(column) for column in zip(*images, strict=True))
    found = answers(labels, predicted, confidence)
    assert calibration_error(found) == pytest.approx(100 * total, abs=1e-9)


def test_among_all_classes_seen_equal_names_are_one_class() -> None:
    """Tasks (cat, dog) and (dog, fish): a dog of either is right wherever dog is answered."""
    union = ClassesSeen.of([unit(0, 30), unit(32, 90)], [("cat", "dog"), ("dog", "fish")])
    predicted = union.predict(unit(31.4, 29, 88))
    assert predicted.tolist() == [2, 1, 3]
    assert union.right(predicted, torch.tensor([1, 1, 1]), start=0).tolist() == [True, True, False]
    assert union.right(predicted, torch.tensor([0, 0, 1]), start=2).tolist() == [True, True, True]
