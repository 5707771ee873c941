"""Consolidation: the penalty by hand, and the graph-free gradient against autograd."""

import pytest
import torch
from torch import Tensor, nn

from gift_core.consolidation import add_consolidation_gradient_, consolidation_penalty

THETA = [torch.tensor([1.0, 5.0]).double(), torch.tensor([[2.0]]).double()]
ANCHOR = [torch.tensor([3.0, 4.0]).double(), torch.tensor([[-1.0]]).double()]
FISHER = [torch.tensor([0.5, 1.5]).double(), torch.tensor([[2.0]]).double()]


def _parameters(gradient: float | None) -> list[nn.Parameter]:
    parameters = [nn.Parameter(theta.clone()) for theta in THETA]
    for parameter in parameters:
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
    return parameters


def test_penalty_worked_out_by_hand() -> None:
    """Changes (-2, 1) and (3): weight 3 times 0.5 * 4 + 1.5 * 1 + 2 * 9 = 21.5, hence 64.5."""
    assert consolidation_penalty(THETA, ANCHOR, FISHER, 3.0).item() == pytest.approx(64.5)


def test_plain_l2_worked_out_by_hand() -> None:
    """Without Fisher: 3 * (4 + 1 + 9) = 42."""
    assert consolidation_penalty(THETA, ANCHOR, None, 3.0).item() == pytest.approx(42.0)


def test_gradient_worked_out_by_hand() -> None:
    """10 + 2 * 3 * F * change: 10 + 6 * (0.5 * -2, 1.5 * 1) = (4, 19), and 10 + 6 * 2 * 3 = 46."""
    parameters = _parameters(10.0)
    penalty = add_consolidation_gradient_(parameters, ANCHOR, FISHER, 3.0)
    assert penalty.item() == pytest.approx(64.5)
    assert [p.grad.flatten().tolist() for p in parameters] == [[4.0, 19.0], [46.0]]


@pytest.mark.parametrize("fisher", [FISHER, None], ids=["adaptive", "l2"])
@pytest.mark.parametrize("gradient", [None, -0.7], ids=["no gradient", "a gradient"])
def test_equals_autograd_of_the_penalty(
    fisher: list[Tensor] | None, gradient: float | None
) -> None:
    by_hand, by_autograd = _parameters(gradient), _parameters(gradient)
    penalty = add_consolidation_gradient_(by_hand, ANCHOR, fisher, 0.3)
    expected = consolidation_penalty(by_autograd, ANCHOR, fisher, 0.3)
    expected.backward()
    assert not penalty.requires_grad
    torch.testing.assert_close(penalty, expected.detach(), rtol=1e-14, atol=0)
    for one, other in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("factor", [1.0, 4.0, -2.0], ids=["1, not 2", "4, not 2", "wrong sign"])
def test_a_wrong_factor_gives_another_gradient(factor: float) -> None:
    parameters = _parameters(0.0)
    add_consolidation_gradient_(parameters, ANCHOR, FISHER, 1.0)
    wrong = factor * FISHER[0] * (THETA[0] - ANCHOR[0])
    assert (parameters[0].grad - wrong).abs().min() > 0.1


def test_leaves_fisher_anchor_and_weights_alone() -> None:
    parameters = _parameters(1.0)
    kept = [tensor.clone() for tensor in (*ANCHOR, *FISHER, *THETA)]
    add_consolidation_gradient_(parameters, ANCHOR, FISHER, 1.0)
    for now, before in zip((*ANCHOR, *FISHER, *parameters), kept, strict=True):
        assert torch.equal(now, before)


def test_no_gradient_reaches_anchor_or_fisher() -> None:
    anchor = [a.clone().requires_grad_() for a in ANCHOR]
    fisher = [f.clone().requires_grad_() for f in FISHER]
    consolidation_penalty(_parameters(None), anchor, fisher, 1.0).backward()
    assert all(tensor.grad is None for tensor in (*anchor, *fisher))


def test_refuses_another_number_of_tensors() -> None:
    with pytest.raises(ValueError, match="zip"):
        consolidation_penalty(THETA, ANCHOR[:1], FISHER, 1.0)
    with pytest.raises(RuntimeError, match="same"):
        add_consolidation_gradient_(_parameters(None), ANCHOR[:1], FISHER, 1.0)
