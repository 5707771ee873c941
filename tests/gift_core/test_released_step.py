"""THE step equals the slow, literal restatement of both released variants."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import asdict

import open_clip
import pytest
import torch

from gift_core.features import DualEncoder, PairFeatures, encode_images, encode_texts
from gift_core.objective import Alignment, Consolidation, Distillation, Objective
from gift_core.step import Anchor, ReplayBatch, TaskBatch, gift_step
from tests.gift_core.released_step import released_step
from tests.gift_core.tiny import Scene, TinyEncoder, distance, scene, sgd, trained

Optimizer = Callable[[DualEncoder], torch.optim.Optimizer]

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


def adamw(model: DualEncoder) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained(model), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)


def _by_the_oracle(
    world: Scene, objective: Objective, make: Optimizer, num_steps: int
) -> tuple[TinyEncoder, list[dict[str, float]]]:
    student = world.student()
    anchor = {name: p.detach().clone() for name, p in student.named_parameters()}
    optimizer = make(student)
    shown = []
    for step in range(num_steps):
        task, replay = world.task(step), world.replay(step)
        shown.append(
            released_step(
                student,
                world.teacher,
                optimizer,
                (task.images_bCHW, task.labels_B, task.class_tokens_KL),
                (
                    replay.images_bCHW,
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
    anchor, optimizer = Anchor.of(student), make(student)
    reports = [
        gift_step(student, optimizer, world.task(i), world.replay(i), anchor, objective)
        for i in range(num_steps)
    ]
    return student, [asdict(report) for report in reports]


@pytest.mark.parametrize("make", [sgd, adamw], ids=["SGD", "AdamW"])
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
    assert distance(slow, world.teacher) > 1e-3
    assert distance(fast, slow) < tolerance
    for report, expected in zip(reports, shown, strict=True):
        assert {key: report[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert shown[2]["consolidation_loss"] > 0.0


def test_the_two_released_variants_differ() -> None:
    world = scene()
    corrected, _ = _by_the_step(world, OBJECTIVES["corrected"], sgd, 3)
    published, _ = _by_the_step(world, OBJECTIVES["as-published"], sgd, 3)
    assert distance(corrected, published) > 1e-3


Change = Callable[..., torch.Tensor]


def _times(factor: float) -> Callable[[Change], Change]:
    """A loss with another factor: 0 drops it, 2 doubles it."""
    return lambda original: lambda *given, **named: factor * original(*given, **named)


def _pull(factor: float) -> Callable[[Change], Change]:
    """Consolidation with another weight."""
    return lambda original: (
        lambda weights, anchor, weight, repeats: original(weights, anchor, factor * weight, repeats)
    )


def _repeats(factor: float) -> Callable[[Change], Change]:
    """Replay gradient and consolidation counted another number of times."""
    return lambda original: (
        lambda weights, anchor, weight, repeats: original(weights, anchor, weight, factor * repeats)
    )


PLACES = {
    "distillation": "gift_core.replay.contrastive_distillation",
    "alignment": "gift_core.replay.image_text_alignment",
    "task loss": "gift_core.step.classification_loss",
    "consolidation": "gift_core.step.consolidate_",
}
MUTATIONS = {
    f"{term}, {word}": (place, (_pull if term == "consolidation" else _times)(factor))
    for term, place in PLACES.items()
    for word, factor in (("dropped", 0.0), ("doubled", 2.0))
} | {
    "repeats, halved": (PLACES["consolidation"], _repeats(0.5)),
    "repeats, doubled": (PLACES["consolidation"], _repeats(2.0)),
}


@pytest.mark.parametrize("released", ["corrected", "as-published"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_step_with_a_wrong_term_is_not_the_released_one(
    name: str, released: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the comparison above is worth: it fails when any one term is dropped or doubled."""
    world, objective = scene(), OBJECTIVES[released]
    slow, _ = _by_the_oracle(world, objective, sgd, 3)
    right, _ = _by_the_step(world, objective, sgd, 3)
    assert distance(right, slow) < 1e-10
    place, mutate = MUTATIONS[name]
    module, function = place.rsplit(".", 1)
    monkeypatch.setattr(place, mutate(getattr(importlib.import_module(module), function)))
    wrong, _ = _by_the_step(world, objective, sgd, 3)
    assert distance(wrong, slow) > 1e-6


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
    default, _ = _by_the_step(world, Objective(), sgd, 3)
    other, _ = _by_the_step(world, Objective.model_validate(changed), sgd, 3)
    assert distance(default, other) > 1e-6


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
        of_slow, of_fast = sgd(slow), sgd(fast)
        for _ in range(2):
            released_step(
                slow,
                teacher,
                of_slow,
                (task.images_bCHW, task.labels_B, task.class_tokens_KL),
                (replay.images_bCHW, prompt_tokens_PL[prompt_ids_B], prompt_ids_B),
                anchor,
                objective,
            )
            gift_step(fast, of_fast, task, replay, held, objective)
        assert distance(slow, teacher) > 1e-3
        assert distance(fast, slow) < 1e-10
