"""The loop: exactly as many updates as asked for, its learning rates, and how it stops."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from gift_core.collapse import CollapseSettings
from gift_core.engine import BothTowers, Engine
from gift_core.errors import DataError, Diverged
from gift_core.features import trainable_parameters
from gift_core.finetune_settings import FinetuneSettings
from gift_core.objective import Objective
from gift_core.schedule import learning_rate_at
from gift_core.step import Anchor, ReplayBatch, StepReport, TaskBatch, gift_step
from gift_core.training import TrainingState, make_optimizer, train
from tests.gift_core.tiny import Scene, TinyEncoder, distance, scene

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
    reports = list(train(TrainingState.start(student, SETTINGS), Batches(world)))
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
    assert len(list(train(TrainingState.start(student, SETTINGS), batches))) == 6
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
        reports = list(train(TrainingState.start(student, changed), batches))
        assert reports[-1].task_loss < reports[0].task_loss - 0.1
        pairs = zip(student.parameters(), world.teacher.parameters(), strict=True)
        moved[method] = sum((a - b).square().sum().item() for a, b in pairs)
    assert moved["gift"] < moved["finetune"]


def test_a_caller_may_stop_in_between() -> None:
    world = scene()
    batches = Batches(world)
    running = train(TrainingState.start(copy.deepcopy(world.teacher), SETTINGS), batches)
    next(running)
    running.close()
    assert batches.num_taken == 1


def test_finetune_takes_no_replay() -> None:
    world = scene()
    settings = SETTINGS.model_copy(update={"objective": Objective().for_method("finetune")})
    batches = [(world.task(step), None) for step in range(6)]
    reports = list(train(TrainingState.start(copy.deepcopy(world.teacher), settings), batches))
    assert all(report.replay_accuracy is None for report in reports)


def test_batches_that_end_early_are_named() -> None:
    world = scene()
    running = train(
        TrainingState.start(copy.deepcopy(world.teacher), SETTINGS), Batches(world, end=4)
    )
    with pytest.raises(DataError, match="ended after 4 of 6 steps"):
        list(running)


def test_divergence_names_the_step_and_advises() -> None:
    world = scene()
    good, replay = world.task(0), world.replay(0)
    bad = TaskBatch(good.images_bCHW * float("inf"), good.labels_B, good.class_tokens_KL)
    batches = [(good, replay), (good, replay), (bad, replay)]
    with pytest.raises(
        Diverged, match=r"^step 3 of 6: .*task_loss is nan.*learning_rate smaller than 0\.01$"
    ):
        list(train(TrainingState.start(copy.deepcopy(world.teacher), SETTINGS), batches))


def test_the_optimizer_is_the_papers() -> None:
    student = scene().student()
    optimizer = make_optimizer(student, FinetuneSettings())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 0.0)
    assert group["fused"]
    assert len(group["params"]) == len(trainable_parameters(student))
    assert all(parameter is not student.logit_scale for parameter in group["params"])


class Unsteady(TinyEncoder):
    """Drops numbers at random, so that a resumed run needs the random state too."""

    def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        return super().encode_image(torch.nn.functional.dropout(image, 0.2, self.training))


def _run(settings: FinetuneSettings, stop: int | None) -> tuple[Unsteady, list[StepReport]]:
    """Learn in one go, or stop after `stop` steps and go on in another student."""
    world = scene(torch.float32)
    torch.manual_seed(0)
    state = TrainingState.start(Unsteady().to(world.dtype), settings)
    batches = Batches(world)
    reports = []
    if stop is not None:
        running = train(state, batches)
        reports = [next(running) for _ in range(stop)]
        saved = {name: tensor.clone() for name, tensor in state.tensors().items()}
        torch.manual_seed(99)
        state = TrainingState.start(Unsteady().to(world.dtype), settings)
        state.restore_(saved)
        batches = Batches(world)
        batches.num_taken = stop
    reports += list(train(state, batches))
    return state.student, reports


@pytest.mark.parametrize("stop", [0, 1, 4, 6])
@pytest.mark.parametrize("method", ["gift", "l2"])
def test_a_resumed_run_ends_bit_for_bit_as_an_unbroken_one(stop: int, method: str) -> None:
    objective = Objective().for_method(method)
    settings = SETTINGS.model_copy(update={"objective": objective})
    whole, reports = _run(settings, None)
    resumed, reports_again = _run(settings, stop)
    assert reports_again == reports
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert distance(whole, Unsteady()) > 0.0


def test_a_state_of_another_model_is_refused() -> None:
    state = TrainingState.start(scene(torch.float32).student(), SETTINGS)
    tensors = state.tensors()
    name = "weight.visual.resblocks.0.weight"
    with pytest.raises(DataError, match=f"it has no {name}"):
        state.restore_({key: value for key, value in tensors.items() if key != name})
    with pytest.raises(DataError, match=r"shape \(3,\) where the model has \(7, 12\)"):
        state.restore_(tensors | {name: torch.zeros(3)})


def test_replay_accuracy_that_collapses_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % for six steps, then 10 %: the window of five falls below half of 80 %.

    Its means are 66, 52, 38, 24 and 10: 38 and 24 are below 40, but not by their noise; 10 is.
    """
    world = scene()
    settings = FinetuneSettings(
        num_steps=40, warmup_steps=2, collapse=CollapseSettings(window=5, share=0.5)
    )
    accuracies = iter([80.0] * 6 + [10.0] * 34)

    def step(*given: object) -> StepReport:
        return replace(gift_step(*given), replay_accuracy=next(accuracies))  # type: ignore[arg-type]

    monkeypatch.setattr("gift_core.training.gift_step", step)
    state = TrainingState.start(copy.deepcopy(world.teacher), settings)
    with pytest.raises(Diverged, match=r"^step 11 of 40: replay accuracy collapsed"):
        list(train(state, Batches(world)))
    assert len(state.replay_accuracies) == state.step == 11
    again = TrainingState.start(copy.deepcopy(world.teacher), settings)
    with pytest.raises(Diverged, match="collapsed"):
        again.restore_(state.tensors())


def _fp16(student: TinyEncoder, init_scale: float) -> TrainingState:
    scaler = GradScaler("cpu", init_scale=init_scale)
    return TrainingState.start(
        student, SETTINGS, Engine(BothTowers(student), "fp16", scaler=scaler)
    )


def test_fp16_learns_with_a_scaled_loss() -> None:
    """The tiny encoder in fp16 autocast ends close to fp32, and not where it started."""
    world = scene(torch.float32)
    exact, half = copy.deepcopy(world.teacher), copy.deepcopy(world.teacher)
    list(train(TrainingState.start(exact, SETTINGS), Batches(world)))
    reports = list(train(_fp16(half, 64.0), Batches(world)))
    assert all(report.gradient_norm is not None for report in reports)
    assert 0.0 < distance(exact, half) < 0.01
    assert distance(half, world.teacher) > 0.03


def test_the_loss_scale_is_part_of_the_state() -> None:
    world = scene(torch.float32)
    state = _fp16(copy.deepcopy(world.teacher), 2.0**40)
    list(train(state, Batches(world)))
    assert state.engine.loss_scale < 2.0**40
    again = _fp16(copy.deepcopy(world.teacher), 64.0)
    again.restore_(state.tensors())
    assert again.engine.loss_scale == state.engine.loss_scale


def test_an_fp16_overflow_skips_the_update_and_lowers_the_scale() -> None:
    world = scene(torch.float32)
    student = copy.deepcopy(world.teacher)
    state = _fp16(student, 2.0**120)  # too large for any gradient in fp16
    running = train(state, Batches(world))
    first = next(running)
    assert first.gradient_norm is None
    assert first.consolidation_loss == 0.0
    assert state.engine.loss_scale == 2.0**119
    assert distance(student, world.teacher) == 0.0
    assert len(list(running)) == 5
