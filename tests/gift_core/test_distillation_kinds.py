"""The ablations of the distillation: each loss restated, and who learns from it."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from gift_core.distillation import feature_distillation, reverse_distillation
from gift_core.engine import plain_engine
from gift_core.errors import SettingsError
from gift_core.objective import Distillation, Objective
from gift_core.replay import ReplayBatch, replay_losses
from tests.gift_core.released_step import soft_cross_entropy, softmax
from tests.gift_core.tiny import TinyEncoder, scene

WORLD, T = scene(), 2.0


def moved_student() -> TinyEncoder:
    """A student that is not its teacher, or every loss would be at its minimum."""
    student = WORLD.student()
    with torch.no_grad():
        for number, p in enumerate(p for p in student.parameters() if p.requires_grad):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
    return student


def loss_of(student: TinyEncoder, replay: ReplayBatch, **settings: object) -> Tensor:
    objective = Objective(distillation=Distillation.model_validate(settings))
    return replay_losses(student, replay, objective, plain_engine(student)).distillation


def restated(student: Tensor, teacher: Tensor) -> Tensor:
    sides = ((student, teacher), (student.T, teacher.T))
    return T**2 * sum(soft_cross_entropy(s / T, softmax(t / T)) for s, t in sides)


def features(student: TinyEncoder, replay: ReplayBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Images, prompts of the pairs, and the factor of similarities."""
    images = student.encode_image(replay.images_bCHW, normalize=True)
    texts = student.encode_text(replay.prompt_tokens_PL, normalize=True)[replay.prompt_ids_B]
    return images, texts, student.logit_scale.exp()


@pytest.mark.parametrize(
    ("kind", "silent"),
    [("images-only", ("transformer", "token_embedding")), ("texts-only", ("visual",))],
)
def test_one_tower_alone_learns(kind: str, silent: tuple[str, ...]) -> None:
    student, replay = moved_student(), WORLD.replay(0)
    images, texts, scale = features(student, replay)
    teacher_images, teacher_texts = vars(replay.teacher).values()
    teacher = scale * teacher_images @ teacher_texts.T
    if kind == "images-only":
        expected = restated(scale * images @ teacher_texts.T, teacher)
    else:
        expected = restated(scale * teacher_images @ texts.T, teacher)
    loss = loss_of(student, replay, kind=kind)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    for name, parameter in student.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert moved == (not name.startswith((*silent, "logit_scale"))), name


def test_known_texts_are_the_teachers_and_images_alone_learn() -> None:
    student, replay = moved_student(), WORLD.replay(0)
    known = normalize(torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator()), dim=-1)
    replay = ReplayBatch(**{**vars(replay), "known_texts_MD": known})
    images, _, scale = features(student, replay)
    teacher = scale * replay.teacher.image_features_BD @ known.T
    loss = loss_of(student, replay, texts="known")
    assert loss.item() == pytest.approx(restated(scale * images @ known.T, teacher).item())
    loss.backward()
    assert student.token_embedding.weight.grad is None
    with pytest.raises(SettingsError, match="the replay batch has no known texts"):
        loss_of(student, WORLD.replay(0), texts="known")


def test_feature_mse_is_the_mean_of_both_squared_differences() -> None:
    student, replay = moved_student(), WORLD.replay(0)
    images, texts, _ = features(student, replay)
    expected = sum(
        ((mine - other) ** 2).mean()
        for mine, other in zip((images, texts), vars(replay.teacher).values(), strict=True)
    )
    assert loss_of(student, replay, kind="feature-mse").item() == pytest.approx(expected.item())
    assert feature_distillation(images, images).item() == 0.0


def test_reverse_kl_weighs_by_the_student() -> None:
    """Student (3/4, 1/4) in each row, teacher (1/4, 3/4): KL = 3/4 ln 3 - 1/4 ln 3 = ln(3) / 2.

    Each column is constant on both sides, hence (1/2, 1/2) on both, and adds nothing.
    """
    log3 = torch.tensor(3.0, dtype=torch.float64).log()
    student = torch.stack([log3, 0 * log3]).repeat(2, 1)
    loss = reverse_distillation(student, student.flip(1), 1.0)
    assert loss.item() == pytest.approx(log3.item() / 2)
    assert loss_of(WORLD.student(), WORLD.replay(0), kind="reverse-kl").item() == pytest.approx(
        0.0, abs=1e-12
    )


def test_kinds_of_a_batch_do_not_go_with_known_texts() -> None:
    with pytest.raises(ValidationError, match="with texts: known choose contrastive or reverse-kl"):
        Distillation(kind="feature-mse", texts="known")
