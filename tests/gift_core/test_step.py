"""The promises of one step: order, what is encoded, what is reported, when it refuses."""

import copy
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from gift_core.consolidation import consolidation_penalty
from gift_core.engine import plain_engine
from gift_core.errors import DataError, Diverged, SettingsError
from gift_core.objective import Alignment, Consolidation, Distillation, Objective
from gift_core.step import Anchor, classification_logits, classification_loss, gift_step
from tests.gift_core.tiny import Scene, TinyEncoder, distance, scene, sgd, trained


def test_the_gradient_of_as_published_is_the_named_sum() -> None:
    """CE + 2 (CD + ITA) + 2 AWC, with Fisher information of CD + ITA once, by autograd."""
    world, objective = scene(), Objective(released="as-published")
    student = world.student()
    anchor = Anchor(tuple(p.detach() + 0.1 for p in trained(student)))
    parts = {}
    for weights in ((1.0, 0.0), (0.0, 0.25)):
        single = Objective(
            distillation=Distillation(weight=weights[0]),
            alignment=Alignment(weight=weights[1]),
            consolidation=Consolidation(weight=0.0),
        )
        parts[weights] = _gradient_of_a_step(student, world, anchor, single)
    plain = _gradient_of_a_step(student, world, anchor, Objective().for_method("finetune"))
    whole = _gradient_of_a_step(student, world, anchor, objective)
    for index, ce in enumerate(plain):
        replayed = sum(part[index] - ce for part in parts.values())
        fisher = replayed**2 / (replayed**2).mean()
        expected = ce + 2 * replayed + 2 * 2 * fisher * -0.1
        torch.testing.assert_close(whole[index], expected, rtol=1e-9, atol=1e-11)


def _gradient_of_a_step(
    student: TinyEncoder, world: Scene, anchor: Anchor, objective: Objective
) -> list[torch.Tensor]:
    frozen = torch.optim.SGD(trained(student), lr=0.0)
    report = gift_step(student, frozen, world.task(0), world.replay(0), anchor, objective)
    gradients = [p.grad.clone() for p in trained(student)]
    norm = sum(g.square().sum() for g in gradients).sqrt().item()
    assert report.gradient_norm == pytest.approx(norm)
    return gradients


def test_without_replay_it_is_the_task_loss_and_the_plain_pull() -> None:
    world, objective = scene(), Objective().for_method("l2")
    student = world.student()
    anchor = Anchor(tuple(p.detach() - 0.2 for p in trained(student)))
    expected = copy.deepcopy(student)
    logits_BK = classification_logits(expected, world.task(0), plain_engine(expected))
    task_loss = classification_loss(logits_BK, world.task(0).labels_B, 0.2)
    pull = consolidation_penalty(trained(expected), anchor.parameters, None, 1.0)
    (task_loss + pull).backward()
    report = gift_step(student, sgd(student), world.task(0), None, anchor, objective)
    for one, other in zip(trained(student), trained(expected), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-14)
    assert report.task_loss == pytest.approx(task_loss.item())
    assert report.consolidation_loss == pytest.approx(pull.item())
    assert (report.distillation_loss, report.alignment_loss) == (0.0, 0.0)
    assert report.replay_accuracy is None


def test_finetune_needs_neither_replay_nor_anchor() -> None:
    world, objective = scene(), Objective().for_method("finetune")
    student = world.student()
    report = gift_step(student, sgd(student), world.task(0), None, Anchor(()), objective)
    assert report.consolidation_loss == 0.0
    assert distance(student, world.teacher) > 0.0


def test_report_holds_plain_numbers_from_before_the_update() -> None:
    world = scene()
    student, task, replay = world.student(), world.task(0), world.replay(0)
    optimizer = torch.optim.SGD(trained(student), lr=0.25)
    report = gift_step(student, optimizer, task, replay, Anchor.of(student), Objective())
    assert all(type(value) is float for value in asdict(report).values())
    assert report.learning_rate == 0.25
    assert report.consolidation_loss == 0.0
    logits_BK = classification_logits(world.teacher, task, plain_engine(world.teacher))
    right = (logits_BK.argmax(dim=1) == task.labels_B).sum().item()
    assert report.task_accuracy == pytest.approx(100 * right / 6)
    logits_BB = replay.teacher.image_features_BD @ replay.teacher.text_features_BD.T
    ids_B = replay.prompt_ids_B
    found = (ids_B[logits_BB.argmax(dim=1)] == ids_B).sum().item()
    assert report.replay_accuracy == pytest.approx(100 * found / 5)


def test_every_prompt_is_encoded_once() -> None:
    """Three distinct prompts of the five pairs, and the task's four classes."""
    world = scene()
    student = world.student()
    optimizer = sgd(student)
    gift_step(student, optimizer, world.task(0), world.replay(0), Anchor.of(student), Objective())
    assert student.num_texts == 3 + 4


def test_the_replay_graph_is_gone_before_the_task_is_encoded() -> None:
    """Its backward has run, so gradients are there, when the task's images go through."""
    world = scene()
    student = world.student()
    seen: list[tuple[int, bool]] = []

    def look(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((len(inputs[0]), student.visual.resblocks[0].weight.grad is not None))

    student.visual.register_forward_pre_hook(look)
    optimizer = sgd(student)
    gift_step(student, optimizer, world.task(0), world.replay(0), Anchor.of(student), Objective())
    assert seen == [(5, False), (6, True)]


def test_old_gradients_do_not_leak_in() -> None:
    world = scene()
    clean, dirty = world.student(), world.student()
    for parameter in trained(dirty):
        parameter.grad = torch.full_like(parameter, 1e3)
    for student in (clean, dirty):
        gift_step(
            student,
            sgd(student),
            world.task(0),
            world.replay(0),
            Anchor.of(student),
            Objective(),
        )
    assert distance(clean, dirty) == 0.0


def test_the_logit_scale_never_moves() -> None:
    world = scene()
    student = copy.deepcopy(world.teacher)  # not frozen by anybody
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    gift_step(student, optimizer, world.task(0), world.replay(0), Anchor.of(student), Objective())
    assert student.logit_scale.item() == world.teacher.logit_scale.item()


def test_a_parameter_out_of_reach_stays() -> None:
    world = scene()
    student = world.student()
    student.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    gift_step(
        student,
        sgd(student),
        world.task(0),
        world.replay(0),
        Anchor.of(student),
        Objective(released="as-published"),
    )
    assert torch.equal(student.unused.detach(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("which", ["task", "replay"])
def test_diverged_before_any_weight_moves(which: str) -> None:
    world = scene()
    student = world.student()
    task, replay = world.task(0), world.replay(0)
    nan = torch.full_like(task.images_bCHW, float("nan"))
    if which == "task":
        task = replace(task, images_bCHW=nan)
    else:
        replay = replace(replay, images_bCHW=nan[:5])
    loss = {"task": "task_loss", "replay": "distillation_loss"}[which]
    with pytest.raises(Diverged, match=rf"{loss} is nan.*; no weight was changed$"):
        gift_step(student, sgd(student), task, replay, Anchor.of(student), Objective())
    assert distance(student, world.teacher) == 0.0


def test_missing_replay_pairs_are_named() -> None:
    world = scene()
    student = world.student()
    with pytest.raises(SettingsError, match="the step got no replay pairs"):
        gift_step(student, sgd(student), world.task(0), None, Anchor.of(student), Objective())


@pytest.mark.parametrize("which", ["task", "replay"])
def test_images_that_do_not_fit_the_batch_are_refused(which: str) -> None:
    world = scene()
    student, task, replay = world.student(), world.task(0), world.replay(0)
    if which == "task":
        task = replace(task, labels_B=task.labels_B[:5])
    else:
        replay = replace(replay, images_bCHW=replay.images_bCHW[:4])
    counts = {"task": "6 images on each of 1 ranks but 5 labels", "replay": "4 images .* 5 pairs"}
    with pytest.raises(DataError, match=counts[which]):
        gift_step(student, sgd(student), task, replay, Anchor.of(student), Objective())
    assert distance(student, world.teacher) == 0.0


def test_the_anchor_is_a_copy() -> None:
    student = scene().student()
    anchor = Anchor.of(student)
    assert len(anchor.parameters) == len(trained(student))
    before = anchor.parameters[0].clone()
    with torch.no_grad():
        trained(student)[0].add_(1.0)
    assert torch.equal(anchor.parameters[0], before)
    assert not anchor.parameters[0].requires_grad
