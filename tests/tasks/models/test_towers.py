"""The towers without waste equal open_clip's own: features and gradients, in fp64."""

import copy
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from tasks.models.towers import Towers

VISION = {"layers": 3, "width": 16, "head_width": 8, "image_size": 8, "patch_size": 4}
TEXT = {"context_length": 9, "vocab_size": 30, "width": 16, "heads": 2, "layers": 3}
END = 29
TOKENS = torch.tensor(
    [
        [28, 4, 5, 6, 7, END, 0, 0, 0],
        [28, 4, 5, 8, END, 0, 0, 0, 0],
        [28, 4, 5, 6, END, 0, 0, 0, 0],
        [28, 4, 5, 8, END, 0, 0, 0, 0],
        [28, 9, 1, 2, 3, 1, 2, END, 0],
    ]
)


def build(kind: type[nn.Module], vision: dict[str, Any], text: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model = kind(embed_dim=12, vision_cfg=VISION | vision, text_cfg=TEXT | text).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outcome(model: nn.Module, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Features of both towers, and the gradient of every weight of a sum that uses all of them."""
    model.zero_grad()
    image_features = model.encode_image(images)
    text_features = model.encode_text(tokens, normalize=True)
    (
        image_features.square().sum() + (text_features[:2] @ text_features[2:].T).exp().sum()
    ).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"images": image_features.detach(), "texts": text_features.detach()} | gradients


VARIANTS: dict[str, tuple[type[nn.Module], dict[str, Any], dict[str, Any], bool, bool]] = {
    "CLIP": (CLIP, {}, {}, True, True),
    "layer scale": (CLIP, {"ls_init_value": 0.5}, {"ls_init_value": 0.3}, True, True),
    "norm after pooling": (CLIP, {"final_ln_after_pool": True}, {}, True, True),
    "biased projection": (CLIP, {}, {"proj_bias": True}, True, True),
    "custom text": (CustomTextCLIP, {}, {}, True, True),
    "eos pooling": (CustomTextCLIP, {}, {"pool_type": "eos", "eos_id": END}, True, True),
    "no causal mask": (CustomTextCLIP, {}, {"no_causal_mask": True}, False, True),
    "class token in the text": (CustomTextCLIP, {}, {"embed_cls": True}, False, True),
    "last token pooled": (CustomTextCLIP, {}, {"pool_type": "last"}, False, True),
    "average pooling": (CLIP, {"pool_type": "avg"}, {}, True, False),
    "attention pooling": (
        CLIP,
        {"attentional_pool": True, "attn_pooler_heads": 2},
        {},
        True,
        False,
    ),
    "residual network": (
        CLIP,
        {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32, "head_width": 8},
        {},
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_features_and_gradients_are_open_clips(name: str, recompute: bool) -> None:
    kind, vision, text, packs, prunes = VARIANTS[name]
    theirs = build(kind, vision, text).eval()
    ours = Towers(copy.deepcopy(theirs)).eval()
    ours.recompute = recompute
    assert (ours.packs_texts, ours.prunes_images) == (packs, prunes)
    size = (VISION | vision)["image_size"]
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    expected, found = outcome(theirs, images, TOKENS), outcome(ours, images, TOKENS)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-10, atol=1e-11, msg=key)


def test_names_and_weights_are_the_models_own() -> None:
    model = build(CLIP, {}, {})
    towers = Towers(model)
    assert [n for n, _ in towers.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert len(list(towers.parameters())) == len(list(model.parameters()))
    assert towers.logit_scale is model.logit_scale


def test_a_real_model_in_fp32() -> None:
    """ViT-B-32 of open_clip at its real size, random weights: ten prompts, two images."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32").eval()
    tokens = open_clip.get_tokenizer("ViT-B-32")(
        [f"a photo of a {name}." for name in open_clip.IMAGENET_CLASSNAMES[:10]]
    )
    towers, images = Towers(model), torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        for one, other in (
            (towers.encode_image(images), model.encode_image(images)),
            (towers.encode_text(tokens), model.encode_text(tokens)),
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_computed_for_its_own_words_alone() -> None:
    """Of 5 x 9 tokens, 13 + 4 nodes: three prompts share "28 4 5" and two are the same."""
    towers = Towers(build(CLIP, {}, {}))
    seen: list[int] = []
    block = towers.clip.transformer.resblocks[0]
    block.ln_1.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    towers.encode_text(TOKENS)
    whole = {
        tuple(row[: length + 1]) for row in TOKENS.tolist() for length in range(row.index(END) + 1)
    }
    assert seen == [len(whole)]
    assert len(whole) < 20


def test_compiled_towers_give_the_same() -> None:
    towers = Towers(build(CLIP, {}, {})).eval()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    expected = outcome(towers, images, TOKENS)
    towers.compile_(backend="aot_eager")
    found = outcome(towers, images, TOKENS)
    fewer = outcome(towers, images, TOKENS[[0, 1, 2, 4]])
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-10, atol=1e-11, msg=key)
    torch.testing.assert_close(fewer["texts"], expected["texts"][[0, 1, 2, 4]])
