"""Contrastive distillation: values by hand, where it is smallest, and the formulas it is not."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from gift_core.distillation import contrastive_distillation
from tests.gift_core.released_step import soft_cross_entropy, softmax

STUDENT = torch.tensor([[0.0, log(3)], [0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[log(3), 0.0], [log(7), 0.0]], dtype=torch.float64)
EXPECTED = 3 * log(2) - 3 / 8 * log(3)

square = st.integers(2, 5).flatmap(
    lambda size: arrays(np.float64, (2, size, size), elements=st.floats(-4, 4, width=32))
)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 5.0])


def test_value_worked_out_by_hand() -> None:
    """T = 1, student [[0, ln 3], [0, 0]], teacher [[ln 3, 0], [ln 7, 0]].

    Row 1: teacher (3/4, 1/4), student (1/4, 3/4): 3/4 ln 4 + 1/4 ln 4/3 = 2 ln 2 - 1/4 ln 3.
    Row 2: teacher (7/8, 1/8), student (1/2, 1/2): ln 2. Mean of rows: (3 ln 2 - 1/4 ln 3) / 2.
    Column 1: teacher (3/10, 7/10), student (1/2, 1/2): ln 2. Column 2: teacher (1/2, 1/2), student
    (3/4, 1/4): 1/2 ln 4/3 + 1/2 ln 4 = 2 ln 2 - 1/2 ln 3. Mean: (3 ln 2 - 1/2 ln 3) / 2.
    Together: 3 ln 2 - 3/8 ln 3 = 1.667462.
    """
    assert pytest.approx(1.6674619, abs=1e-6) == EXPECTED
    assert contrastive_distillation(STUDENT, TEACHER, 1.0).item() == pytest.approx(EXPECTED)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 3.0])
def test_temperature_squared_times_the_softened_value(temperature: float) -> None:
    """Logits T times as large, divided by T, give the value by hand; T^2 stays in front."""
    loss = contrastive_distillation(temperature * STUDENT, temperature * TEACHER, temperature)
    assert loss.item() == pytest.approx(temperature**2 * EXPECTED)


def _rows(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    return soft_cross_entropy(student / t, softmax(teacher / t))


MUTANTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "no T^2": lambda s, t, x: _rows(s, t, x) + _rows(s.T, t.T, x),
    "T, not T^2": lambda s, t, x: x * (_rows(s, t, x) + _rows(s.T, t.T, x)),
    "rows twice": lambda s, t, x: 2 * x**2 * _rows(s, t, x),
    "columns twice": lambda s, t, x: 2 * x**2 * _rows(s.T, t.T, x),
    "rows only": lambda s, t, x: x**2 * _rows(s, t, x),
    "mean of both": lambda s, t, x: x**2 * (_rows(s, t, x) + _rows(s.T, t.T, x)) / 2,
    "sides swapped": lambda s, t, x: x**2 * (_rows(t, s, x) + _rows(t.T, s.T, x)),
    "teacher transposed": lambda s, t, x: x**2 * (_rows(s, t.T, x) + _rows(s.T, t, x)),
    "teacher not softened": lambda s, t, x: (
        x**2 * (soft_cross_entropy(s / x, softmax(t)) + soft_cross_entropy(s.T / x, softmax(t.T)))
    ),
    "wrong sign": lambda s, t, x: -(x**2) * (_rows(s, t, x) + _rows(s.T, t.T, x)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_formula_gives_another_number(mutant: str) -> None:
    """The value by hand at T = 2 tells the right formula from each of these."""
    wrong = MUTANTS[mutant](2 * STUDENT, 2 * TEACHER, 2.0).item()
    assert abs(wrong - 4 * EXPECTED) > 0.05


@given(square, temperatures)
def test_smallest_and_flat_where_student_equals_teacher(
    logits: np.ndarray, temperature: float
) -> None:
    teacher_BB, other_BB = torch.from_numpy(logits)
    student_BB = teacher_BB.clone().requires_grad_()
    best = contrastive_distillation(student_BB, teacher_BB, temperature)
    best.backward()
    assert student_BB.grad is not None
    assert student_BB.grad.abs().max() < 1e-12
    assert contrastive_distillation(other_BB, teacher_BB, temperature) >= best - 1e-10


@given(square, temperatures)
def test_gradient_is_that_of_forward_kl(logits: np.ndarray, temperature: float) -> None:
    """d/dM_s of T^2 KL(teacher || student) is T (q - p) / B, over rows and over columns."""
    teacher_BB, student_BB = torch.from_numpy(logits)
    student_BB.requires_grad_()
    contrastive_distillation(student_BB, teacher_BB, temperature).backward()
    s, t = student_BB.detach() / temperature, teacher_BB / temperature
    rows, columns = s.softmax(1) - t.softmax(1), s.softmax(0) - t.softmax(0)
    expected = temperature * (rows + columns) / len(s)
    torch.testing.assert_close(student_BB.grad, expected, rtol=0, atol=1e-12)


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = TEACHER.clone().requires_grad_()
    student = STUDENT.clone().requires_grad_()
    contrastive_distillation(student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_autograd_agrees_with_differences_in_float64() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: contrastive_distillation(s, TEACHER, 2.0), student)
