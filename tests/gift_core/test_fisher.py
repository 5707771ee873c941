"""The Fisher diagonal: normalised by hand, estimated against autograd, drift by block."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from gift_core.engine import plain_engine
from gift_core.errors import DataError, SettingsError
from gift_core.features import trainable_parameters
from gift_core.fisher import (
    BlockDrift,
    block_drift,
    block_of,
    estimate_fisher,
)
from gift_core.normalised import normalised_fisher
from gift_core.objective import Objective
from gift_core.replay import replay_losses
from tests.gift_core.tiny import scene


def test_normalised_worked_out_by_hand() -> None:
    """(1, -2, 3) squared is (1, 4, 9) with mean 14/3: (3, 12, 27) / 14; each tensor for itself."""
    first, second = normalised_fisher([torch.tensor([1.0, -2.0, 3.0]), torch.tensor([[5.0]])])
    torch.testing.assert_close(first, torch.tensor([3.0, 12.0, 27.0]) / 14)
    torch.testing.assert_close(second, torch.tensor([[1.0]]))


def test_an_all_zero_gradient_gives_zeros() -> None:
    assert torch.equal(normalised_fisher([torch.zeros(2, 3)])[0], torch.zeros(2, 3))


@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(-9, 9))
)
def test_mean_is_one_and_scale_does_not_matter(gradient: np.ndarray) -> None:
    g = torch.from_numpy(gradient)
    if g.abs().max() < 1e-6:
        return
    fisher, scaled = normalised_fisher([g, -1000.0 * g])
    assert fisher.mean().item() == pytest.approx(1.0)
    assert fisher.min() >= 0.0
    torch.testing.assert_close(scaled, fisher, rtol=1e-12, atol=0)


def test_estimate_is_the_mean_of_squared_gradients_of_each_batch() -> None:
    """Squares are taken a batch, then averaged: not the square of the mean gradient."""
    world, objective = scene(), Objective()
    student = world.student()
    with torch.no_grad():
        student.visual.resblocks[1].weight.mul_(1.3)
    batches = [world.replay(0), world.replay(1)]
    fisher = estimate_fisher(student, iter(batches), objective)
    parameters = trainable_parameters(student)
    assert list(fisher) == list(parameters)
    gradients = []
    for replay in batches:
        losses = replay_losses(student, replay, objective, plain_engine(student))
        loss = losses.distillation + losses.alignment
        gradients.append(torch.autograd.grad(loss, list(parameters.values())))
    for index, estimate in enumerate(fisher.values()):
        first, second = gradients[0][index], gradients[1][index]
        assert estimate.dtype == torch.float32
        assert torch.allclose(estimate.double(), (first**2 + second**2) / 2, rtol=1e-5, atol=1e-12)
        assert not torch.allclose(estimate.double(), ((first + second) / 2) ** 2, rtol=1e-2)


def test_estimate_leaves_gradients_mode_and_weights_alone() -> None:
    world = scene()
    student = world.student().eval()
    marker = torch.ones_like(student.token_embedding.weight)
    student.token_embedding.weight.grad = marker
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    estimate_fisher(student, [world.replay(0)], Objective())
    assert student.token_embedding.weight.grad is marker
    assert torch.equal(marker, torch.ones_like(marker))
    assert student.visual.resblocks[0].weight.grad is None
    assert not student.training
    assert all(torch.equal(before[name], now) for name, now in student.state_dict().items())


def test_a_parameter_out_of_reach_has_zero_information() -> None:
    world = scene()
    student = world.student()
    student.unused = nn.Parameter(torch.ones(3))
    fisher = estimate_fisher(student, [world.replay(0)], Objective())
    assert torch.equal(fisher["unused"], torch.zeros(3))


def test_estimate_refuses_no_batches_and_no_losses() -> None:
    with pytest.raises(DataError, match="no batch of replay pairs"):
        estimate_fisher(scene().student(), [], Objective())
    with pytest.raises(SettingsError, match="both 0"):
        estimate_fisher(scene().student(), [], Objective().for_method("l2"))


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("visual.transformer.resblocks.3.attn.in_proj_weight", "visual.transformer.resblocks.3"),
        ("visual.transformer.resblocks.11.mlp.c_fc.bias", "visual.transformer.resblocks.11"),
        ("transformer.resblocks.0.ln_1.weight", "transformer.resblocks.0"),
        ("visual.layer1.0.downsample.0.weight", "visual.layer1.0"),
        ("visual.conv1.weight", "visual.conv1"),
        ("token_embedding.weight", "token_embedding"),
        ("positional_embedding", "positional_embedding"),
        ("visual.class_embedding", "visual.class_embedding"),
        ("visual.proj", "visual.proj"),
        ("ln_final.bias", "ln_final"),
    ],
)
def test_block_of(name: str, block: str) -> None:
    assert block_of(name) == block


def test_drift_worked_out_by_hand() -> None:
    """conv1: weight (3, 4) to (3, 6), Fisher (1, 3), normalised (0.5, 1.5); bias 12 to 12.

    Distance 2; norm before sqrt(9 + 16 + 144) = 13; weighted sqrt(1.5 * 4) = sqrt 6.
    proj: 0 to 0.5 with no information: distance 0.5, relative 0 for want of a norm, weighted 0.
    """
    before = {
        "logit_scale": torch.tensor(1.0),
        "visual.proj": torch.tensor([0.0]),
        "visual.conv1.bias": torch.tensor([12.0]),
        "visual.conv1.weight": torch.tensor([3.0, 4.0]),
    }
    after = before | {
        "visual.conv1.weight": torch.tensor([3.0, 6.0]),
        "visual.proj": torch.tensor([0.5]),
    }
    fisher = {
        "visual.conv1.weight": torch.tensor([1.0, 3.0]),
        "visual.conv1.bias": torch.tensor([5.0]),
        "visual.proj": torch.tensor([0.0]),
    }
    conv1, proj = block_drift(before, after, fisher)
    assert conv1 == BlockDrift("visual.conv1", 3, 2.0, pytest.approx(2 / 13), sqrt(6))
    assert proj == BlockDrift("visual.proj", 1, 0.5, 0.0, 0.0)


def test_drift_names_what_does_not_fit() -> None:
    one = {"visual.proj": torch.ones(2)}
    with pytest.raises(DataError, match=r"visual\.proj is missing from `after`"):
        block_drift(one, {}, one)
    with pytest.raises(DataError, match=r"\(2,\) before, \(3,\) after and \(2,\)"):
        block_drift(one, {"visual.proj": torch.ones(3)}, one)
