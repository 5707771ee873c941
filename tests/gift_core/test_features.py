"""The two towers: unit vectors, logits, and which parameters train."""

import torch
from torch import nn

from gift_core.features import (
    encode_images,
    encode_texts,
    freeze_logit_scale_,
    similarity,
    trainable_parameters,
)
from tests.gift_core.tiny import TinyEncoder, scene


def test_features_are_unit_vectors_in_the_encoders_direction() -> None:
    world = scene()
    replay = world.replay(0)
    for features, raw in (
        (
            encode_images(world.teacher, replay.images_bCHW),
            world.teacher.encode_image(replay.images_bCHW),
        ),
        (
            encode_texts(world.teacher, replay.prompt_tokens_PL),
            world.teacher.encode_text(replay.prompt_tokens_PL),
        ),
    ):
        torch.testing.assert_close(features, raw / raw.norm(dim=1, keepdim=True))


def test_similarity_worked_out_by_hand() -> None:
    """Row 1, (1, 0) with each row of the second: 10 * (0.6, 0, -1); row 2, (0, 1): the rest."""
    a_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b_KD = torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    expected = torch.tensor([[6.0, 0.0, -10.0], [8.0, 10.0, 0.0]])
    torch.testing.assert_close(similarity(a_BD, b_KD, 10.0), expected)
    torch.testing.assert_close(similarity(a_BD, b_KD, torch.tensor(10.0)), expected)
    torch.testing.assert_close(similarity(b_KD, a_BD, 10.0), expected.T)


def test_trainable_parameters_keep_the_models_order_without_the_scale() -> None:
    model = TinyEncoder()
    model.visual.resblocks[0].requires_grad_(False)
    assert list(trainable_parameters(model)) == [
        "visual.resblocks.1.weight",
        "visual.resblocks.1.bias",
        "token_embedding.weight",
        "transformer.resblocks.0.weight",
        "transformer.resblocks.0.bias",
        "transformer.resblocks.1.weight",
        "transformer.resblocks.1.bias",
    ]
    assert all(isinstance(p, nn.Parameter) for p in trainable_parameters(model).values())


def test_freezing_the_scale_touches_nothing_else() -> None:
    model = TinyEncoder()
    names = list(trainable_parameters(model))
    freeze_logit_scale_(model)
    assert not model.logit_scale.requires_grad
    assert list(trainable_parameters(model)) == names
