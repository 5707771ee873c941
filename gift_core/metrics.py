"""Metrics over the accuracy matrix; a new one is one function and one row of METRICS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gift_core.errors import DataError


@dataclass(frozen=True)
class AccuracyMatrix:
    """Accuracy in percent of every task after every task, and before any training.

    `values[i][j]` is the accuracy on task j after learning task i, both from 0; `zero_shot[j]`
    that of the pretrained model and part of no metric. Lists and arrays become tuples of floats.
    Raises DataError when names, row and matrix do not fit or a number is not from 0 to 100.
    Source: docs/method.md, Metrics.
    """

    tasks: Sequence[str]
    zero_shot: Sequence[float]
    values: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        num_tasks = len(self.tasks)
        if num_tasks == 0:
            raise DataError("accuracy matrix: it has no tasks; name at least one")
        if len(set(self.tasks)) != num_tasks:
            raise DataError(f"accuracy matrix: tasks {list(self.tasks)} hold one twice; rename it")
        row = _percentages("zero_shot", [self.zero_shot], (1, num_tasks))
        matrix = _percentages("values", self.values, (num_tasks, num_tasks))
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "zero_shot", row[0])
        object.__setattr__(self, "values", matrix)

    @property
    def array_TT(self) -> NDArray[np.float64]:  # noqa: N802 - T is the number of tasks
        """The values as a new (T, T) array."""
        return np.asarray(self.values, dtype=np.float64)


def transfer(matrix: AccuracyMatrix) -> float | None:
    """Mean over tasks 2 to T of the mean accuracy on the task before it was learnt; percent.

    Only rows after a task count, not the zero-shot row. None for a single task. Source:
    docs/method.md, Metrics.
    """
    values_TT = matrix.array_TT
    if len(values_TT) == 1:
        return None
    return float(np.mean([values_TT[:j, j].mean() for j in range(1, len(values_TT))]))


def average(matrix: AccuracyMatrix) -> float:
    """Mean of all entries; percent. Source: docs/method.md, Metrics."""
    return float(matrix.array_TT.mean())


def last(matrix: AccuracyMatrix) -> float:
    """Mean accuracy on all tasks after the last one; percent. Source: docs/method.md, Metrics."""
    return float(matrix.array_TT[-1].mean())


def learned(matrix: AccuracyMatrix) -> float:
    """Mean of the diagonal: accuracy on each task when just learnt; percent.

    Source: docs/method.md, Metrics, the A[j,j].
    """
    return float(matrix.array_TT.diagonal().mean())


def released_forget(matrix: AccuracyMatrix) -> float | None:
    """Compute the released Forget: sum over j of A[T,j] - A[j,j], over T - 1; percent points.

    Negative is worse. None for a single task. Source: docs/method.md, Metrics.
    """
    values_TT = matrix.array_TT
    if len(values_TT) == 1:
        return None
    return float((values_TT[-1] - values_TT.diagonal()).sum() / (len(values_TT) - 1))


def forgetting(matrix: AccuracyMatrix) -> float | None:
    """Mean over j < T of the best earlier accuracy on task j less the last; percent points.

    The best is over rows 1 to T - 1, so a task that ends at its best counts as negative, as in
    Chaudhry et al. 2018. Positive is worse. None for a single task. Source: docs/method.md,
    Metrics.
    """
    values_TT = matrix.array_TT
    if len(values_TT) == 1:
        return None
    return float((values_TT[:-1, :-1].max(axis=0) - values_TT[-1, :-1]).mean())


METRICS: dict[str, Callable[[AccuracyMatrix], float | None]] = {
    "transfer": transfer,
    "average": average,
    "last": last,
    "learned": learned,
    "released_forget": released_forget,
    "forgetting": forgetting,
}


def summarise(matrix: AccuracyMatrix) -> dict[str, float | None]:
    """Every metric by name; None where it needs two tasks. Source: docs/method.md, Metrics."""
    return {name: metric(matrix) for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Incremental:
    """Class-incremental learning: accuracy over all classes seen so far, after each step; percent.

    Source: docs/method.md, Metrics.
    """

    steps: tuple[float, ...]

    @property
    def average(self) -> float:
        """Avg: the mean over the steps; percent."""
        return sum(self.steps) / len(self.steps)

    @property
    def last(self) -> float:
        """Last: after the last step, over all classes; percent."""
        return self.steps[-1]


def incremental(num_correct: Sequence[Sequence[int]], num_images: Sequence[int]) -> Incremental:
    """Accuracy over the classes seen, from counts: all images weigh the same.

    `num_correct[i][j]` of the `num_images[j]` images of task j are recognised after task i among
    the classes of tasks 1 to i, for j from 1 to i. Raises DataError when rows and images do not
    fit. Source: docs/method.md, Metrics.
    """
    if not num_correct or [len(row) for row in num_correct] != list(range(1, len(num_images) + 1)):
        raise DataError(
            f"classes seen: rows of {[len(row) for row in num_correct]} counts for "
            f"{len(num_images)} tasks; give one count for each task seen"
        )
    totals = [sum(num_images[: len(row)]) for row in num_correct]
    return Incremental(
        tuple(100.0 * sum(row) / total for row, total in zip(num_correct, totals, strict=True))
    )


def _percentages(
    name: str, values: Sequence[Sequence[float]], shape: tuple[int, int]
) -> tuple[tuple[float, ...], ...]:
    lengths = [len(row) for row in values]
    if lengths != [shape[1]] * shape[0]:
        raise DataError(
            f"accuracy matrix: {name} has rows of {lengths} numbers, expected {shape[0]} of "
            f"{shape[1]}; give one number a task"
        )
    array = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array >= 0.0) & (array <= 100.0)):
        raise DataError(
            f"accuracy matrix: {name} holds {array.tolist()}, not all from 0 to 100; give percent"
        )
    return tuple(tuple(row) for row in array.tolist())
