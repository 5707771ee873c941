"""Consolidation: the penalty by hand, and the graph-free gradients against autograd."""

import pytest
import torch
from torch import Tensor, nn

from gift_core import pieces
from gift_core.consolidation import (
    add_consolidation_gradient_,
    consolidate_,
    consolidation_penalty,
)
from gift_core.normalised import normalised_fisher

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


def test_adaptive_gradient_worked_out_by_hand() -> None:
    """Gradients (1, 3) and (-2): F = (1, 9) / 5 and 1; changes (-2, 1) and 3; weight 0.5.

    Pull 2 * 0.5 * F * change = (-0.4, 1.8) and 3; penalty 0.5 * (0.8 + 1.8 + 9) = 5.8; twice in
    the as-published form: 2 * (0.6, 4.8) and 2 * 1.
    """
    parameters = _parameters(0.0)
    parameters[0].grad = torch.tensor([1.0, 3.0]).double()
    parameters[1].grad = torch.tensor([[-2.0]]).double()
    penalty = consolidate_(parameters, ANCHOR, 0.5, repeats=2.0)
    assert penalty.item() == pytest.approx(5.8)
    assert parameters[0].grad.tolist() == pytest.approx([1.2, 9.6])
    assert parameters[1].grad.item() == pytest.approx(2.0)


def _many(seed: int, dtype: torch.dtype) -> tuple[list[nn.Parameter], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    parameters = [nn.Parameter(draw(*shape)) for shape in ((40, 30), (7,), (2, 3, 4, 5), (1,))]
    for parameter in parameters:
        parameter.grad = draw(*parameter.shape)
    anchor = [parameter.detach() + 0.1 * draw(*parameter.shape) for parameter in parameters]
    return parameters, anchor


@pytest.mark.parametrize("piece", [16, 2**17], ids=["many pieces", "whole tensors"])
@pytest.mark.parametrize("repeats", [1.0, 2.0])
def test_adaptive_equals_autograd_of_the_penalty(
    piece: int, repeats: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "CPU_PIECE", piece)
    by_hand, anchor = _many(0, torch.float64)
    by_autograd, _ = _many(0, torch.float64)
    by_autograd[0].grad, by_hand[0].grad = None, None  # out of the replay losses' reach
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in by_autograd]
    expected = consolidation_penalty(by_autograd, anchor, normalised_fisher(gradients), 0.3)
    expected.backward()
    penalty = consolidate_(by_hand, anchor, 0.3, repeats)
    assert not penalty.requires_grad
    torch.testing.assert_close(penalty, expected.detach(), rtol=1e-12, atol=0)
    assert by_hand[0].grad is None
    for one, other in zip(by_hand[1:], by_autograd[1:], strict=True):
        torch.testing.assert_close(one.grad, repeats * other.grad, rtol=1e-12, atol=1e-14)


def test_adaptive_with_an_all_zero_gradient_holds_nothing() -> None:
    parameters = _parameters(0.0)
    assert consolidate_(parameters, ANCHOR, 1.0).item() == 0.0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in parameters)


def test_large_tensors_in_fp32_are_as_exact_as_small_ones() -> None:
    """A sum of 8 million squares in one go is wrong by a part in a thousand on some processors."""
    generator = torch.Generator().manual_seed(1)
    parameter = nn.Parameter(torch.randn(8_000_000, generator=generator))
    anchor = parameter.detach() + 0.01
    parameter.grad = torch.randn(8_000_000, generator=generator)
    gradient = parameter.grad.double()
    fisher = gradient.square() / gradient.square().mean()
    drift = parameter.detach().double() - anchor.double()
    penalty = consolidate_([parameter], [anchor], 1.0)
    torch.testing.assert_close(penalty.double(), (fisher * drift.square()).sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        parameter.grad.double(), gradient + 2 * fisher * drift, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("gradient", [None, -0.7], ids=["no gradient", "a gradient"])
def test_plain_pull_equals_autograd_of_the_penalty(gradient: float | None) -> None:
    by_hand, by_autograd = _parameters(gradient), _parameters(gradient)
    penalty = add_consolidation_gradient_(by_hand, ANCHOR, 0.3)
    expected = consolidation_penalty(by_autograd, ANCHOR, None, 0.3)
    expected.backward()
    assert not penalty.requires_grad
    torch.testing.assert_close(penalty, expected.detach(), rtol=1e-14, atol=0)
    for one, other in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("factor", [1.0, 4.0, -2.0], ids=["1, not 2", "4, not 2", "wrong sign"])
def test_a_wrong_factor_gives_another_gradient(factor: float) -> None:
    parameters = _parameters(0.0)
    add_consolidation_gradient_(parameters, ANCHOR, 1.0)
    wrong = factor * (THETA[0] - ANCHOR[0])
    assert (parameters[0].grad - wrong).abs().min() > 0.1


def test_leaves_anchor_and_weights_alone() -> None:
    parameters = _parameters(1.0)
    kept = [tensor.clone() for tensor in (*ANCHOR, *THETA)]
    add_consolidation_gradient_(parameters, ANCHOR, 1.0)
    consolidate_(parameters, ANCHOR, 1.0)
    for now, before in zip((*ANCHOR, *parameters), kept, strict=True):
        assert torch.equal(now, before)


def test_no_gradient_reaches_anchor_or_fisher() -> None:
    anchor = [a.clone().requires_grad_() for a in ANCHOR]
    fisher = [f.clone().requires_grad_() for f in FISHER]
    consolidation_penalty(_parameters(None), anchor, fisher, 1.0).backward()
    assert all(tensor.grad is None for tensor in (*anchor, *fisher))


def test_refuses_another_number_of_tensors() -> None:
    with pytest.raises(ValueError, match="zip"):
        consolidation_penalty(THETA, ANCHOR[:1], FISHER, 1.0)
    for change in (add_consolidation_gradient_, consolidate_):
        with pytest.raises(ValueError, match="zip"):
            change(_parameters(1.0), ANCHOR[:1], 1.0)
