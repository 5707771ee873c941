"""Distillation of a sigmoid model: values by hand, what it sees, and how a step reads the bias."""

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor, nn

from gift_core.distillation import contrastive_distillation
from gift_core.engine import plain_engine
from gift_core.features import freeze_logit_scale_, logit_bias_of, trainable_parameters
from gift_core.objective import Objective
from gift_core.replay import ReplayLosses, encode_pairs, replay_losses
from gift_core.sigmoid_distillation import sigmoid_distillation
from gift_core.step import classification_logits
from tests.gift_core.tiny import Scene, TinyEncoder, scene

STUDENT = torch.tensor([[log(3), -log(3)], [0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[log(7), 0.0], [log(3), 0.0]], dtype=torch.float64)


def test_value_worked_out_by_hand() -> None:
    """T = 1, student's sigmoids [[3/4, 1/4], [1/2, 1/2]], the teacher's [[7/8, 1/2], [3/4, 1/2]].

    Entries: 7/8 ln 4/3 + 1/8 ln 4 = 2 ln 2 - 7/8 ln 3; 1/2 ln 4 + 1/2 ln 4/3 = 2 ln 2 - 1/2 ln 3;
    ln 2; ln 2. Two rows, both ways: 2 * sum / 2 = 6 ln 2 - 11/8 ln 3 = 2.648292.
    """
    expected = 6 * log(2) - 11 / 8 * log(3)
    assert expected == pytest.approx(2.6482917, abs=1e-6)
    assert sigmoid_distillation(STUDENT, TEACHER, 1.0).item() == pytest.approx(expected)
    softened = sigmoid_distillation(2 * STUDENT, 2 * TEACHER, 2.0).item()
    assert softened == pytest.approx(4 * expected)


def _entropies(student: Tensor, teacher: Tensor) -> Tensor:
    share = teacher.sigmoid()
    return -(share * student.sigmoid().log() + (1 - share) * (-student).sigmoid().log())


MUTANTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "softmax": contrastive_distillation,
    "mean of all entries": lambda s, t, x: x**2 * 2 * _entropies(s / x, t / x).mean(),
    "one way": lambda s, t, x: x**2 * _entropies(s / x, t / x).sum() / 2,
    "no T^2": lambda s, t, x: _entropies(s / x, t / x).sum(),
    "teacher not softened": lambda s, t, x: x**2 * _entropies(s / x, t).sum(),
    "sides swapped": lambda s, t, x: x**2 * _entropies(t / x, s / x).sum(),
    "transposed": lambda s, t, x: x**2 * _entropies(s / x, t.T / x).sum(),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_formula_gives_another_number(mutant: str) -> None:
    right = sigmoid_distillation(2 * STUDENT, 2 * TEACHER, 2.0).item()
    assert abs(MUTANTS[mutant](2 * STUDENT, 2 * TEACHER, 2.0).item() - right) > 0.05


def test_gradient_is_the_difference_of_the_sigmoids() -> None:
    """2 T (student - teacher) / B, zero where they agree, and none for the teacher."""
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    sigmoid_distillation(student, teacher, 2.0).backward()
    expected = 2 * 2.0 * ((STUDENT / 2).sigmoid() - (TEACHER / 2).sigmoid()) / 2
    torch.testing.assert_close(student.grad, expected)
    assert teacher.grad is None
    same = TEACHER.clone().requires_grad_()
    sigmoid_distillation(same, TEACHER, 2.0).backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-12


def test_it_sees_a_shift_of_all_logits_which_a_softmax_does_not() -> None:
    away = STUDENT + 3.0
    assert sigmoid_distillation(away, STUDENT, 2.0) > sigmoid_distillation(STUDENT, STUDENT, 2.0)
    torch.testing.assert_close(
        contrastive_distillation(away, STUDENT, 2.0),
        contrastive_distillation(STUDENT, STUDENT, 2.0),
    )


def with_bias(world: Scene, bias: float | None) -> TinyEncoder:
    student = world.student()
    if bias is not None:
        student.logit_bias = nn.Parameter(torch.tensor(bias, dtype=world.dtype))
    with torch.no_grad():
        student.visual.resblocks[0].weight.mul_(1.5)  # apart from its teacher
    return student


def losses(world: Scene, student: TinyEncoder) -> ReplayLosses:
    return replay_losses(student, world.replay(0), Objective(), plain_engine(student))


def test_a_step_reads_the_bias_in_its_distillation_alone() -> None:
    world = scene()
    plain, sigmoid = (with_bias(world, bias) for bias in (None, -4.0))
    before, after = losses(world, plain), losses(world, sigmoid)
    torch.testing.assert_close(after.alignment, before.alignment)
    assert after.accuracy == before.accuracy
    engine, replay = plain_engine(sigmoid), world.replay(0)
    pairs, scale = encode_pairs(engine, replay), sigmoid.logit_scale.exp()
    own = scale * pairs.image_features_BD @ pairs.text_features_BD.T - 4.0
    teachers = scale * replay.teacher.image_features_BD @ replay.teacher.text_features_BD.T - 4.0
    torch.testing.assert_close(after.distillation, sigmoid_distillation(own, teachers, 2.0))
    torch.testing.assert_close(
        classification_logits(sigmoid, world.task(0), engine),
        classification_logits(plain, world.task(0), plain_engine(plain)),
    )


def test_the_bias_is_frozen() -> None:
    student = with_bias(scene(), -4.0)
    assert "logit_bias" in dict(student.named_parameters())
    assert "logit_bias" not in trainable_parameters(student)
    bias = logit_bias_of(student)
    assert bias is not None
    assert (bias.item(), bias.requires_grad) == (-4.0, False)
    assert logit_bias_of(with_bias(scene(), None)) is None
    freeze_logit_scale_(student)
    assert not student.logit_bias.requires_grad
