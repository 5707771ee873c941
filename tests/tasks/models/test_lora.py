"""Low-rank updates: exact where they are, confined to them, gone into the weights at the end."""

import copy

import pytest
import torch
from torch import Tensor, nn

from gift_core.features import trainable_parameters
from gift_core.freezing import LowRank, Trained, freeze_towers_
from tasks.models.lora import LowRankUpdates
from tasks.models.split_attention import SplitAttention, join_attention_, split_attention_
from tasks.models.towers import Towers
from tests.tasks.models.test_towers import TOKENS, VARIANTS, build

IMAGES = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def model_of(name: str) -> Towers:
    kind, vision, text, _, _ = VARIANTS[name]
    return Towers(build(kind, vision, text)).eval()


def features(towers: Towers) -> tuple[Tensor, Tensor]:
    return towers.encode_image(IMAGES), towers.encode_text(TOKENS)


@pytest.mark.parametrize("name", ["CLIP", "custom text", "no causal mask", "attention pooling"])
def test_updates_reach_both_towers_and_end_in_the_weights(name: str) -> None:
    towers = model_of(name)
    weights = {key: value.clone() for key, value in towers.clip.state_dict().items()}
    before = features(towers)
    updates = LowRankUpdates(towers, Trained(lora=LowRank(rank=2)))
    for one, other in zip(features(towers), before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)  # B is zero
    learning = trainable_parameters(towers)
    assert learning
    assert all(".lora_" in key for key in learning)
    sum(part.square().sum() for part in features(towers)).backward()
    reached = {key for key, p in learning.items() if p.grad is not None and p.grad.any()}
    assert {key for key in learning if ".lora_B." in key} == reached
    with torch.no_grad():
        for parameter in learning.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    moved = features(towers)
    updates.merge_()
    after = towers.clip.state_dict()
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in weights.items()}
    for one, other, old in zip(features(towers), moved, before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        assert (one - old).abs().max() > 1e-3


def test_a_tower_that_does_not_learn_gets_no_update() -> None:
    towers = model_of("CLIP")
    trained = Trained(image_tower=False, lora=LowRank(rank=2, target_modules=("q_proj", "c_fc")))
    freeze_towers_(towers, trained)
    LowRankUpdates(towers, trained)
    layers = {name.partition(".lora_")[0] for name in trainable_parameters(towers)}
    assert layers == {
        f"transformer.resblocks.{block}.{layer}"
        for block in range(3)
        for layer in ("attn.q_proj", "mlp.c_fc")
    }


@pytest.mark.parametrize("masked", [False, True])
def test_an_attention_taken_apart_gives_what_torchs_gives(masked: bool) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True).double())
    nn.init.normal_(whole[0].in_proj_bias)
    parts = copy.deepcopy(whole)
    split_attention_(parts)
    assert isinstance(parts[0], SplitAttention)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1) if masked else None
    expected = whole[0](x, x, x, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(parts[0](x, x, x, need_weights=False, attn_mask=mask)[0], expected)
    with pytest.raises(ValueError, match="not kept"):
        parts[0](x, x, x, need_weights=True)
    join_attention_(parts)
    assert all(
        torch.equal(parts.state_dict()[name], value) for name, value in whole.state_dict().items()
    )
