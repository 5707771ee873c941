"""What a task leaves: the ensemble is the mean along the run, WiSE-FT a mixture; resumed alike."""

import copy

import pytest
import torch
from torch import Tensor

from gift_core.errors import SettingsError
from gift_core.finetune_settings import Averaging, FinetuneSettings
from gift_core.finishing import finish_
from gift_core.objective import Consolidation, Objective
from gift_core.training import TrainingState, train
from tests.gift_core.tiny import TinyEncoder, distance, scene, trained

WORLD = scene()


def settings(averaging: Averaging, objective: Objective | None = None) -> FinetuneSettings:
    objective = objective or Objective().for_method("finetune")
    return FinetuneSettings(
        num_steps=6, warmup_steps=2, learning_rate=1e-2, averaging=averaging, objective=objective
    )


def state_of(asked: FinetuneSettings) -> TrainingState:
    return TrainingState.start(WORLD.student(), asked)


def go_on(state: TrainingState, stop: int | None = None) -> list[list[Tensor]]:
    """Train to the end or to a step; the weights after each step."""
    batches = ((WORLD.task(n), WORLD.replay(n)) for n in range(state.step, 6))
    seen = []
    for _ in train(state, batches):
        seen.append([p.detach().clone() for p in trained(state.student)])
        if state.step == stop:
            break
    return seen


def test_an_ensemble_is_the_mean_of_the_start_and_every_second_step() -> None:
    state = state_of(settings(Averaging(ensemble_every=2)))
    start = [p.detach().clone() for p in trained(state.student)]
    seen = go_on(state)
    finish_(state)
    for number, parameter in enumerate(trained(state.student)):
        chosen = [start[number], *(weights[number] for weights in seen[1::2])]
        assert torch.allclose(parameter, torch.stack(chosen).mean(0))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_wise_ft_goes_from_the_parent_to_what_was_learnt(share: float) -> None:
    parent = WORLD.student()
    plain, mixed = state_of(settings(Averaging())), state_of(settings(Averaging(share=share)))
    for state in (plain, mixed):
        go_on(state)
        finish_(state)
    expected = copy.deepcopy(parent)
    with torch.no_grad():
        for p, learnt in zip(trained(expected), trained(plain.student), strict=True):
            p.copy_((1 - share) * p + share * learnt)
    assert isinstance(mixed.student, TinyEncoder)
    assert distance(mixed.student, expected) < 1e-12


def test_wise_ft_may_mix_with_the_pretrained_model() -> None:
    state = state_of(settings(Averaging(share=0.0, origin="initial")))
    go_on(state)
    with pytest.raises(SettingsError, match="needs the pretrained model"):
        finish_(state)
    initial = [p.detach() for p in trained(scene(seed=3).student())]
    finish_(state, initial)
    assert all(map(torch.equal, trained(state.student), initial))


STATIC = Objective(consolidation=Consolidation(kind="static", weight=0.5, static_steps=3))


@pytest.mark.parametrize("stop", [2, 4])
def test_means_that_grow_are_part_of_the_state(stop: int) -> None:
    asked = settings(Averaging(ensemble_every=1, share=0.7), STATIC)
    unbroken, broken, resumed = (state_of(asked) for _ in range(3))
    go_on(unbroken)
    go_on(broken, stop)
    resumed.restore_({name: tensor.clone() for name, tensor in broken.tensors().items()})
    go_on(resumed)
    for state in (unbroken, resumed):
        finish_(state)
    assert isinstance(unbroken.student, TinyEncoder)
    assert isinstance(resumed.student, TinyEncoder)
    assert distance(unbroken.student, resumed.student) == 0.0


def test_static_fisher_is_the_mean_of_the_first_steps() -> None:
    """With no pull and no learning rate every step sees the same weights, hence the exact mean."""
    from gift_core.normalised import normalised_fisher
    from gift_core.replay import replay_losses

    state = state_of(settings(Averaging(), STATIC))
    expected = []
    for number in range(3):
        state.student.zero_grad()
        losses = replay_losses(state.student, WORLD.replay(number), STATIC, state.engine)
        (losses.distillation + losses.alignment).backward()
        gradients = [
            p.grad if p.grad is not None else torch.zeros_like(p) for p in trained(state.student)
        ]
        expected.append(normalised_fisher(gradients))
        state.step = number
    frozen = state.settings.model_copy(update={"learning_rate": 1e-30})
    state.settings, state.step = frozen, 0
    go_on(state)
    assert state.anchor.fisher is not None
    assert state.anchor.fisher.count == 3
    for found, each in zip(state.anchor.fisher.tensors, zip(*expected, strict=True), strict=True):
        assert torch.allclose(found, torch.stack(each).mean(0))
