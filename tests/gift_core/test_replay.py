"""The replay side: prompts encoded once, losses weighted, batches that do not fit refused."""

from dataclasses import replace

import pytest
import torch

from gift_core.engine import plain_engine
from gift_core.errors import DataError
from gift_core.features import PairFeatures, encode_texts
from gift_core.objective import Alignment, Distillation, Objective
from gift_core.replay import encode_pairs, replay_losses
from tests.gift_core.tiny import scene


def test_each_distinct_prompt_is_encoded_once_and_gathered() -> None:
    world = scene()
    student, replay = world.student(), world.replay(0)
    pairs = encode_pairs(plain_engine(student), replay)
    assert student.num_texts == 3
    dense = encode_texts(student, replay.prompt_tokens_PL[replay.prompt_ids_B])
    torch.testing.assert_close(pairs.text_features_BD, dense)


def test_losses_carry_their_weights() -> None:
    world = scene()
    student, replay = world.student(), world.replay(0)
    once = replay_losses(
        student,
        replay,
        Objective(distillation=Distillation(weight=1), alignment=Alignment(weight=1)),
        plain_engine(student),
    )
    other = replay_losses(
        student,
        replay,
        Objective(distillation=Distillation(weight=3), alignment=Alignment(weight=5)),
        plain_engine(student),
    )
    torch.testing.assert_close(other.distillation, 3 * once.distillation)
    torch.testing.assert_close(other.alignment, 5 * once.alignment)
    assert other.accuracy == once.accuracy


def test_accuracy_accepts_every_equal_prompt() -> None:
    """Images 1 and 2 look like their prompt 0, image 3 of prompt 1 does too: 2 of 3 are right."""

    class Fixed:
        logit_scale = torch.tensor(0.0)

        def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            return image.flatten(1)

        def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            return torch.eye(2)[text[:, 0]]

    world = scene(torch.float32)
    batch = replace(
        world.replay(0),
        images_bCHW=torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]).reshape(3, 1, 1, 2),
        prompt_tokens_PL=torch.tensor([[0], [1]]),
        prompt_ids_B=torch.tensor([0, 0, 1]),
        teacher=PairFeatures(torch.eye(2)[[0, 0, 1]], torch.eye(2)[[0, 0, 1]]),
    )
    losses = replay_losses(Fixed(), batch, Objective(), plain_engine(Fixed()))  # type: ignore[arg-type]
    assert losses.accuracy.item() == pytest.approx(200 / 3)


def test_teacher_features_of_half_precision_are_accepted() -> None:
    world = scene(torch.float32)
    student, replay = world.student(), world.replay(0)
    teacher = PairFeatures(
        replay.teacher.image_features_BD.half(), replay.teacher.text_features_BD.half()
    )
    engine = plain_engine(student)
    half = replay_losses(student, replace(replay, teacher=teacher), Objective(), engine)
    full = replay_losses(student, replay, Objective(), engine)
    torch.testing.assert_close(half.distillation, full.distillation, rtol=1e-3, atol=0)


def test_numbers_of_pairs_that_differ_are_refused() -> None:
    replay = scene().replay(0)
    with pytest.raises(DataError, match="4 prompt_ids, 5 teacher image features"):
        replace(replay, prompt_ids_B=replay.prompt_ids_B[:4])
