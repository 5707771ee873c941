"""Metrics: one matrix by hand, naive loops, one task, and matrices that are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gift_core.errors import DataError
from gift_core.metrics import (
    METRICS,
    AccuracyMatrix,
    average,
    forgetting,
    incremental,
    last,
    learned,
    released_forget,
    summarise,
    transfer,
)

HAND = AccuracyMatrix(
    tasks=("a", "b", "c"),
    zero_shot=(10.0, 99.0, 99.0),
    values=((50.0, 20.0, 30.0), (44.0, 80.0, 40.0), (47.0, 74.0, 90.0)),
)

matrices = st.integers(2, 5).flatmap(
    lambda size: arrays(np.float64, (size, size), elements=st.floats(0, 100))
)


def _matrix(values: np.ndarray) -> AccuracyMatrix:
    names = [f"task {index}" for index in range(len(values))]
    return AccuracyMatrix(names, np.zeros(len(values)), values)


def test_worked_out_by_hand() -> None:
    """Rows are after a, b, c; columns are accuracies on a, b, c.

    Transfer: task b 20, task c (30 + 40) / 2 = 35, mean 27.5; the zero-shot row is not in it.
    Average: (100 + 164 + 211) / 9 = 52.777... Last: 211 / 3 = 70.333... Learned: 220 / 3.
    Released Forget: ((47 - 50) + (74 - 80) + 0) / 2 = -4.5.
    Forgetting: ((max(50, 44) - 47) + (max(20, 80) - 74)) / 2 = (3 + 6) / 2 = 4.5.
    """
    assert summarise(HAND) == {
        "transfer": pytest.approx(27.5),
        "average": pytest.approx(475 / 9),
        "last": pytest.approx(211 / 3),
        "learned": pytest.approx(220 / 3),
        "released_forget": pytest.approx(-4.5),
        "forgetting": pytest.approx(4.5),
    }


def test_a_transposed_matrix_gives_other_numbers() -> None:
    turned = AccuracyMatrix(HAND.tasks, HAND.zero_shot, HAND.array_TT.T)
    for name in ("transfer", "last", "released_forget", "forgetting"):
        assert abs(METRICS[name](turned) - METRICS[name](HAND)) > 1.0, name


def test_forgetting_is_not_the_negative_of_the_released_one() -> None:
    """Task a rises from 50 to 70 after b and falls to 60: forgotten 10, released +10 / 2."""
    matrix = AccuracyMatrix(("a", "b", "c"), (0, 0, 0), ((50, 0, 0), (70, 80, 0), (60, 80, 90)))
    assert forgetting(matrix) == pytest.approx(5.0)
    assert released_forget(matrix) == pytest.approx(5.0)


def test_a_task_that_ends_at_its_best_counts_as_negative() -> None:
    """The best of earlier rows only, as in Chaudhry et al.: 50 - 60, and 80 - 80."""
    matrix = AccuracyMatrix(("a", "b"), (0, 0), ((50, 0), (60, 80)))
    assert forgetting(matrix) == pytest.approx(-10.0)


@given(matrices)
def test_against_naive_loops(values: np.ndarray) -> None:
    matrix, size = _matrix(values), len(values)
    columns = []
    for j in range(1, size):
        above = [values[i][j] for i in range(j)]
        columns.append(sum(above) / len(above))
    assert transfer(matrix) == pytest.approx(sum(columns) / len(columns))
    total = sum(values[i][j] for i in range(size) for j in range(size))
    assert average(matrix) == pytest.approx(total / size**2)
    assert last(matrix) == pytest.approx(sum(values[size - 1]) / size)
    diagonal = [values[j][j] for j in range(size)]
    assert learned(matrix) == pytest.approx(sum(diagonal) / size)
    lost = sum(values[size - 1][j] - diagonal[j] for j in range(size))
    assert released_forget(matrix) == pytest.approx(lost / (size - 1), abs=1e-9)
    best = [max(values[i][j] for i in range(size - 1)) for j in range(size - 1)]
    fallen = sum(best[j] - values[size - 1][j] for j in range(size - 1))
    assert forgetting(matrix) == pytest.approx(fallen / (size - 1), abs=1e-9)


def test_class_incremental_worked_out_by_hand() -> None:
    """Ten, thirty and twenty images, which weigh the same: 70 % after step 2, not (80 + 66.7) / 2.

    Recognised are 9 of 10 after step 1, 8 + 20 of 40 after step 2, 5 + 15 + 19 of 60 after step 3.
    Avg = (90 + 70 + 65) / 3 = 75; Last = 65.
    """
    found = incremental([[9], [8, 20], [5, 15, 19]], [10, 30, 20])
    assert found.steps == pytest.approx((90.0, 70.0, 65.0))
    assert (found.average, found.last) == (pytest.approx(75.0), pytest.approx(65.0))
    for counts in ([], [[9]], [[9], [8]]):
        with pytest.raises(DataError, match="give one count for each task seen"):
            incremental(counts, [10, 30])


def test_one_task_has_no_transfer_and_no_forgetting() -> None:
    assert summarise(AccuracyMatrix(("a",), (10.0,), ((60.0,),))) == {
        "transfer": None,
        "average": 60.0,
        "last": 60.0,
        "learned": 60.0,
        "released_forget": None,
        "forgetting": None,
    }


def test_lists_and_arrays_become_tuples() -> None:
    matrix = AccuracyMatrix(["a", "b"], np.array([1.0, 2.0]), [[1, 2], [3, 4]])
    assert matrix.values == ((1.0, 2.0), (3.0, 4.0))
    assert matrix == AccuracyMatrix(("a", "b"), (1.0, 2.0), ((1.0, 2.0), (3.0, 4.0)))
    assert hash(matrix) == hash(AccuracyMatrix(matrix.tasks, matrix.zero_shot, matrix.values))


@pytest.mark.parametrize(
    ("tasks", "zero_shot", "values", "what"),
    [
        ((), (), (), "no tasks"),
        (("a", "a"), (1, 2), ((1, 2), (3, 4)), "hold one twice"),
        (("a", "b"), (1,), ((1, 2), (3, 4)), "zero_shot has rows of"),
        (("a", "b"), (1, 2), ((1, 2),), "values has rows of"),
        (("a", "b"), (1, 2), ((1, 2), (3,)), "values has rows of"),
        (("a",), (1,), ((101,),), "values holds"),
        (("a",), (-0.1,), ((1,),), "zero_shot holds"),
        (("a",), (1,), ((float("nan"),),), "values holds"),
    ],
)
def test_what_does_not_fit_is_refused(
    tasks: tuple[str, ...],
    zero_shot: tuple[float, ...],
    values: tuple[tuple[float, ...], ...],
    what: str,
) -> None:
    with pytest.raises(DataError, match=what):
        AccuracyMatrix(tasks, zero_shot, values)
