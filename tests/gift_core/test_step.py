"""THE step: equal to the slow restatement of both released variants, and its promises."""

import copy
from collections.abc import Callable
from dataclasses import asdict, replace

import open_clip
import pytest
import torch
from torch import nn

from gift_core.alignment import Alignment
from gift_core.consolidation import Consolidation, consolidation_penalty
from gift_core.distillation import Distillation
from gift_core.errors import DataError, Diverged, SettingsError
from gift_core.features import DualEncoder, PairFeatures, encode_images, encode_texts
from gift_core.features import trainable_parameters
from gift_core.objective import Objective
from gift_core.step import (
    Anchor,
    ReplayBatch,
    TaskBatch,
    classification_logits,
    classification_loss,
    gift_step,
)
from tests.gift_core.released_step import released_step
from tests.gift_core.tiny import Scene, TinyEncoder, scene

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OBJECTIVES = {
    "corrected": Objective(),
    "as-published": Objective(released="as-published"),
    "other weights": Objective(
        distillation=Distillation(weight=0.3, temperature=3.0),
        alignment=Alignment(weight=2.0, label_smoothing=0.05),
        consolidation=Consolidation(weight=7.0),
        label_smoothing=0.0,
        released="as-published",
    ),
    "no distillation": Objective(distillation=Distillation(weight=0.0)),
    "no alignment": Objective(alignment=Alignment(weight=0.0)),
}
SGD: Optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)  # noqa: E731
ADAMW: Optimizer = lambda parameters: torch.optim.AdamW(  # noqa: E731
    parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0
)


def _trained(model: DualEncoder) -> list[nn.Parameter]:
    return list(trainable_parameters(model).values())


def _by_the_oracle(
    world: Scene, objective: Objective, make: Optimizer, num_steps: int
) -> tuple[TinyEncoder, list[dict[str, float]]]:
    student = world.student()
    anchor = {name: p.detach().clone() for name, p in student.named_parameters()}
    optimizer = make(_trained(student))
    shown = []
    for step in range(num_steps):
        task, replay = world.task(step), world.replay(step)
        shown.append(
            released_step(
                student,
                world.teacher,
                optimizer,
                (task.images_BCHW, task.labels_B, task.class_tokens_KL),
                (
                    replay.images_BCHW,
                    replay.prompt_tokens_PL[replay.prompt_ids_B],
                    replay.prompt_ids_B,
                ),
                anchor,
                objective,
            )
        )
    return student, shown


def _by_the_step(
    world: Scene, objective: Objective, make: Optimizer, num_steps: int
) -> tuple[TinyEncoder, list[dict[str, float | None]]]:
    student = world.student()
    anchor, optimizer = Anchor.of(student), make(_trained(student))
    reports = [
        gift_step(student, optimizer, world.task(i), world.replay(i), anchor, objective)
        for i in range(num_steps)
    ]
    return student, [asdict(report) for report in reports]


def _distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("make", [SGD, ADAMW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=["fp64", "fp32"]
)
def test_three_steps_equal_the_released_ones(
    name: str, make: Optimizer, dtype: torch.dtype, tolerance: float
) -> None:
    world = scene(dtype)
    slow, shown = _by_the_oracle(world, OBJECTIVES[name], make, 3)
    fast, reports = _by_the_step(world, OBJECTIVES[name], make, 3)
    assert _distance(slow, world.teacher) > 1e-3
    assert _distance(fast, slow) < tolerance
    for report, expected in zip(reports, shown, strict=True):
        assert {key: report[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert shown[2]["consolidation_loss"] > 0.0


def test_the_two_released_variants_differ() -> None:
    world = scene()
    corrected, _ = _by_the_step(world, OBJECTIVES["corrected"], SGD, 3)
    published, _ = _by_the_step(world, OBJECTIVES["as-published"], SGD, 3)
    assert _distance(corrected, published) > 1e-3


@pytest.mark.parametrize(
    "changed",
    [
        {"distillation": Distillation(temperature=2.2)},
        {"distillation": Distillation(weight=1.1)},
        {"alignment": Alignment(weight=0.3)},
        {"alignment": Alignment(label_smoothing=0.1)},
        {"consolidation": Consolidation(weight=1.2)},
        {"consolidation": Consolidation(kind="l2")},
        {"label_smoothing": 0.1},
    ],
    ids=str,
)
def test_every_setting_moves_the_update(changed: dict[str, object]) -> None:
    """No weight, temperature or smoothing is read but unused."""
    world = scene()
    default, _ = _by_the_step(world, Objective(), SGD, 3)
    other, _ = _by_the_step(world, Objective.model_validate(changed), SGD, 3)
    assert _distance(default, other) > 1e-6


def test_the_gradient_of_as_published_is_the_named_sum() -> None:
    """CE + 2 (CD + ITA) + 2 AWC, with Fisher information of CD + ITA once, by autograd."""
    world, objective = scene(), Objective(released="as-published")
    student = world.student()
    anchor = Anchor(tuple(p.detach() + 0.1 for p in _trained(student)))
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
    frozen = torch.optim.SGD(_trained(student), lr=0.0)
    report = gift_step(student, frozen, world.task(0), world.replay(0), anchor, objective)
    gradients = [p.grad.clone() for p in _trained(student)]
    norm = sum(g.square().sum() for g in gradients).sqrt().item()
    assert report.gradient_norm == pytest.approx(norm)
    return gradients


def test_without_replay_it_is_the_task_loss_and_the_plain_pull() -> None:
    world, objective = scene(), Objective().for_method("l2")
    student = world.student()
    anchor = Anchor(tuple(p.detach() - 0.2 for p in _trained(student)))
    expected = copy.deepcopy(student)
    logits_BK = classification_logits(expected, world.task(0))
    task_loss = classification_loss(logits_BK, world.task(0).labels_B, 0.2)
    pull = consolidation_penalty(_trained(expected), anchor.parameters, None, 1.0)
    (task_loss + pull).backward()
    report = gift_step(student, SGD(_trained(student)), world.task(0), None, anchor, objective)
    for one, other in zip(_trained(student), _trained(expected), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-14)
    assert report.task_loss == pytest.approx(task_loss.item())
    assert report.consolidation_loss == pytest.approx(pull.item())
    assert (report.distillation_loss, report.alignment_loss) == (0.0, 0.0)
    assert report.replay_accuracy is None


def test_finetune_needs_neither_replay_nor_anchor() -> None:
    world, objective = scene(), Objective().for_method("finetune")
    student = world.student()
    report = gift_step(student, SGD(_trained(student)), world.task(0), None, Anchor(()), objective)
    assert report.consolidation_loss == 0.0
    assert _distance(student, world.teacher) > 0.0


def test_report_holds_plain_numbers_from_before_the_update() -> None:
    world = scene()
    student, task, replay = world.student(), world.task(0), world.replay(0)
    optimizer = torch.optim.SGD(_trained(student), lr=0.25)
    report = gift_step(student, optimizer, task, replay, Anchor.of(student), Objective())
    assert all(type(value) is float for value in asdict(report).values())
    assert report.learning_rate == 0.25
    assert report.consolidation_loss == 0.0
    logits_BK = classification_logits(world.teacher, task)
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
    optimizer = SGD(_trained(student))
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
    optimizer = SGD(_trained(student))
    gift_step(student, optimizer, world.task(0), world.replay(0), Anchor.of(student), Objective())
    assert seen == [(5, False), (6, True)]


def test_old_gradients_do_not_leak_in() -> None:
    world = scene()
    clean, dirty = world.student(), world.student()
    for parameter in _trained(dirty):
        parameter.grad = torch.full_like(parameter, 1e3)
    for student in (clean, dirty):
        gift_step(
            student,
            SGD(_trained(student)),
            world.task(0),
            world.replay(0),
            Anchor.of(student),
            Objective(),
        )
    assert _distance(clean, dirty) == 0.0


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
        SGD(_trained(student)),
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
    nan = torch.full_like(task.images_BCHW, float("nan"))
    if which == "task":
        task = replace(task, images_BCHW=nan)
    else:
        replay = replace(replay, images_BCHW=nan[:5])
    loss = {"task": "task_loss", "replay": "distillation_loss"}[which]
    with pytest.raises(Diverged, match=rf"{loss} is nan.*; no weight was changed$"):
        gift_step(student, SGD(_trained(student)), task, replay, Anchor.of(student), Objective())
    assert _distance(student, world.teacher) == 0.0


def test_missing_replay_pairs_are_named() -> None:
    world = scene()
    student = world.student()
    with pytest.raises(SettingsError, match="the step got no replay pairs"):
        gift_step(
            student, SGD(_trained(student)), world.task(0), None, Anchor.of(student), Objective()
        )


def test_a_label_an_image() -> None:
    task = scene().task(0)
    with pytest.raises(DataError, match="6 images but 5 labels"):
        replace(task, labels_B=task.labels_B[:5])


def test_the_anchor_is_a_copy() -> None:
    student = scene().student()
    anchor = Anchor.of(student)
    assert len(anchor.parameters) == len(_trained(student))
    before = anchor.parameters[0].clone()
    with torch.no_grad():
        _trained(student)[0].add_(1.0)
    assert torch.equal(anchor.parameters[0], before)
    assert not anchor.parameters[0].requires_grad


def test_a_real_open_clip_model_takes_the_same_steps() -> None:
    """Two steps of a two-block CLIP in fp64 against the oracle; both variants."""
    torch.manual_seed(0)
    teacher = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"layers": 1, "width": 16, "head_width": 8, "image_size": 8, "patch_size": 4},
        text_cfg={"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    ).double()
    images_BCHW = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    class_tokens_KL = torch.tensor([[1, 5, 19, 0, 0, 0], [1, 6, 7, 19, 0, 0], [1, 8, 19, 0, 0, 0]])
    task = TaskBatch(images_BCHW, torch.tensor([0, 2, 1, 2]), class_tokens_KL)
    prompt_tokens_PL, prompt_ids_B = class_tokens_KL[:2] + 0, torch.tensor([1, 0, 1])
    with torch.no_grad():
        features = PairFeatures(
            encode_images(teacher, images_BCHW[:3].flip(-1)),
            encode_texts(teacher, prompt_tokens_PL)[prompt_ids_B],
        )
    replay = ReplayBatch(images_BCHW[:3].flip(-1), prompt_tokens_PL, prompt_ids_B, features)
    for objective in (OBJECTIVES["corrected"], OBJECTIVES["as-published"]):
        slow, fast = copy.deepcopy(teacher), copy.deepcopy(teacher)
        slow.logit_scale.requires_grad_(False)
        fast.logit_scale.requires_grad_(False)
        anchor = {name: p.detach().clone() for name, p in slow.named_parameters()}
        held = Anchor.of(fast)
        of_slow, of_fast = SGD(_trained(slow)), SGD(_trained(fast))
        for _ in range(2):
            released_step(
                slow,
                teacher,
                of_slow,
                (task.images_BCHW, task.labels_B, task.class_tokens_KL),
                (replay.images_BCHW, prompt_tokens_PL[prompt_ids_B], prompt_ids_B),
                anchor,
                objective,
            )
            gift_step(fast, of_fast, task, replay, held, objective)
        assert _distance(slow, teacher) > 1e-3
        assert _distance(fast, slow) < 1e-10
