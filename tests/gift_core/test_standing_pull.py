"""Consolidation by a Fisher diagonal that stands: EWC's and the static one, against autograd."""

import pytest
import torch

from gift_core.averaging import RunningMean
from gift_core.consolidation import add_consolidation_gradient_, consolidation_penalty
from gift_core.engine import plain_engine
from gift_core.errors import DataError, SettingsError
from gift_core.fisher import estimate_task_fisher
from gift_core.normalised import normalised_fisher, summed_fisher
from gift_core.objective import Consolidation, Objective
from gift_core.step import Anchor, classification_logits, classification_loss, gift_step
from tests.gift_core.tiny import scene, sgd, trained


def test_the_weighted_pull_is_the_penaltys_gradient() -> None:
    generator = torch.Generator().manual_seed(0)

    def made() -> list[torch.Tensor]:
        return [
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (5,))
        ]

    parameters, anchor = [t.requires_grad_() for t in made()], made()
    fisher = [tensor.abs() for tensor in made()]
    penalty = consolidation_penalty(parameters, anchor, fisher, 0.3)
    expected = torch.autograd.grad(penalty, parameters)
    held = add_consolidation_gradient_(parameters, anchor, 0.3, fisher)
    assert held.item() == pytest.approx(penalty.item())
    assert all(torch.allclose(p.grad, g) for p, g in zip(parameters, expected, strict=True))


def test_a_step_of_ewc_is_the_task_loss_and_the_penalty() -> None:
    world, objective = scene(), Objective().for_method("ewc")
    student, by_hand = world.student(), world.student()
    before = tuple(p.detach() - 0.2 for p in trained(student))
    fisher = tuple(torch.rand_like(p) for p in before)
    task = world.task(0)
    report = gift_step(
        student, sgd(student), task, None, Anchor(before, RunningMean(fisher, 1)), objective
    )
    loss = classification_loss(
        classification_logits(by_hand, task, plain_engine(by_hand)), task.labels_B, 0.2
    )
    penalty = consolidation_penalty(trained(by_hand), before, fisher, 1.0)
    (loss + penalty).backward()
    sgd(by_hand).step()
    assert report.consolidation_loss == pytest.approx(penalty.item())
    for found, expected in zip(trained(student), trained(by_hand), strict=True):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("kind", ["ewc", "static"])
def test_a_standing_pull_needs_its_fisher(kind: str) -> None:
    world = scene()
    objective = Objective(consolidation=Consolidation.model_validate({"kind": kind}))
    student = world.student()
    with pytest.raises(SettingsError, match=f"of kind {kind} needs a Fisher diagonal"):
        gift_step(
            student, sgd(student), world.task(0), world.replay(0), Anchor.of(student), objective
        )


def test_an_overflow_does_not_spoil_the_mean_that_static_holds_by() -> None:
    from gift_core.step import _watch_fisher_

    parameters = [torch.nn.Parameter(torch.ones(2))]
    anchor = Anchor((torch.ones(2),), RunningMean.empty(parameters))
    parameters[0].grad = torch.tensor([1.0, torch.inf])
    _watch_fisher_(parameters, anchor, 5)
    assert anchor.fisher is not None
    assert anchor.fisher.count == 0
    parameters[0].grad = torch.tensor([1.0, 3.0])
    _watch_fisher_(parameters, anchor, 5)
    assert torch.equal(anchor.fisher.tensors[0], normalised_fisher([parameters[0].grad])[0])


def test_fisher_of_a_task_is_the_mean_square_of_the_true_labels_gradient() -> None:
    world, student = scene(torch.float32), scene(torch.float32).student()
    found = estimate_task_fisher(student, [world.task(0), world.task(1)])
    squares = [torch.zeros_like(p) for p in trained(student)]
    for number in (0, 1):
        task = world.task(number)
        images = student.encode_image(task.images_bCHW, normalize=True)
        texts = student.encode_text(task.class_tokens_KL, normalize=True)
        logits = student.logit_scale.exp() * images @ texts.T
        loss = -logits.log_softmax(1)[torch.arange(len(task.labels_B)), task.labels_B].mean()
        for total, g in zip(squares, torch.autograd.grad(loss, trained(student)), strict=True):
            total += g**2 / 2
    for mine, expected in zip(found.values(), squares, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-4)
    assert all(p.grad is None for p in student.parameters())
    with pytest.raises(DataError, match="there is no batch"):
        estimate_task_fisher(student, [])


def test_tasks_count_alike_and_tensors_keep_their_proportions() -> None:
    """First task: mean 2 over four numbers; second: mean 0.5. Each divided by its mean, added."""
    first = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([4.0, 0.0])}
    second = {"a": torch.tensor([0.5, 0.5]), "b": torch.tensor([0.0, 1.0])}
    a, b = summed_fisher([first, second], ["a", "b"])
    assert a.tolist() == [1.5, 2.5]
    assert b.tolist() == [2.0, 2.0]
    (zero,) = summed_fisher([{"a": torch.zeros(2)}], ["a"])
    assert zero.tolist() == [0.0, 0.0]
