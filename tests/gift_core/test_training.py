"""The loop: exactly as many updates as asked for, its learning rates, and how it stops."""

import copy
from collections.abc import Iterator

import pytest
import torch

from gift_core.errors import DataError, Diverged
from gift_core.features import trainable_parameters
from gift_core.objective import Objective
from gift_core.schedule import learning_rate_at
from gift_core.step import Anchor, ReplayBatch, TaskBatch, gift_step
from gift_core.training import FinetuneSettings, make_optimizer, train
from tests.gift_core.tiny import Scene, scene

SETTINGS = FinetuneSettings(num_steps=6, warmup_steps=2, learning_rate=1e-2)


class Batches:
    """Batches of a scene without end, counting what is taken."""

    def __init__(self, world: Scene, end: int = 1_000_000) -> None:
        self.world, self.end, self.num_taken = world, end, 0

    def __iter__(self) -> Iterator[tuple[TaskBatch, ReplayBatch | None]]:
        while self.num_taken < self.end:
            self.num_taken += 1
            yield self.world.task(self.num_taken - 1), self.world.replay(self.num_taken - 1)


def test_the_loop_is_the_step_with_a_schedule() -> None:
    world = scene()
    student, by_hand = copy.deepcopy(world.teacher), world.student()
    reports = list(train(student, Batches(world), SETTINGS))
    anchor, optimizer = Anchor.of(by_hand), make_optimizer(by_hand, SETTINGS)
    for step, report in enumerate(reports):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, 6, 2, 1e-2)
        assert report == gift_step(
            by_hand, optimizer, world.task(step), world.replay(step), anchor, SETTINGS.objective
        )
    assert [r.learning_rate for r in reports] == [learning_rate_at(s, 6, 2, 1e-2) for s in range(6)]
    for one, other in zip(student.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)


def test_exactly_num_steps_batches_are_taken() -> None:
    world = scene()
    batches = Batches(world)
    student = copy.deepcopy(world.teacher).eval()
    assert len(list(train(student, batches, SETTINGS))) == 6
    assert batches.num_taken == 6
    assert student.training
    assert not student.logit_scale.requires_grad


def test_it_learns_the_task() -> None:
    """The same task batch 40 times over: its loss falls, and replay holds the student back."""
    world = scene()
    settings = FinetuneSettings(num_steps=40, warmup_steps=4, learning_rate=2e-2)
    moved = {}
    for method in ("gift", "finetune"):
        objective = Objective().for_method(method)
        changed = settings.model_copy(update={"objective": objective})
        student = copy.deepcopy(world.teacher)
        batches = [(world.task(0), world.replay(0))] * 40
        reports = list(train(student, batches, changed))
        assert reports[-1].task_loss < reports[0].task_loss - 0.1
        pairs = zip(student.parameters(), world.teacher.parameters(), strict=True)
        moved[method] = sum((a - b).square().sum().item() for a, b in pairs)
    assert moved["gift"] < moved["finetune"]


def test_a_caller_may_stop_in_between() -> None:
    world = scene()
    batches = Batches(world)
    running = train(copy.deepcopy(world.teacher), batches, SETTINGS)
    next(running)
    running.close()
    assert batches.num_taken == 1


def test_finetune_takes_no_replay() -> None:
    world = scene()
    settings = SETTINGS.model_copy(update={"objective": Objective().for_method("finetune")})
    batches = [(world.task(step), None) for step in range(6)]
    reports = list(train(copy.deepcopy(world.teacher), batches, settings))
    assert all(report.replay_accuracy is None for report in reports)


def test_batches_that_end_early_are_named() -> None:
    world = scene()
    running = train(copy.deepcopy(world.teacher), Batches(world, end=4), SETTINGS)
    with pytest.raises(DataError, match="ended after 4 of 6 steps"):
        list(running)


def test_divergence_names_the_step_and_advises() -> None:
    world = scene()
    good, replay = world.task(0), world.replay(0)
    bad = TaskBatch(good.images_BCHW * float("inf"), good.labels_B, good.class_tokens_KL)
    batches = [(good, replay), (good, replay), (bad, replay)]
    with pytest.raises(
        Diverged, match=r"^step 3 of 6: .*task_loss is nan.*learning_rate smaller than 0\.01$"
    ):
        list(train(copy.deepcopy(world.teacher), batches, SETTINGS))


def test_the_optimizer_is_the_papers() -> None:
    student = scene().student()
    optimizer = make_optimizer(student, FinetuneSettings())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 0.0)
    assert group["fused"]
    assert len(group["params"]) == len(trainable_parameters(student))
    assert all(parameter is not student.logit_scale for parameter in group["params"])
