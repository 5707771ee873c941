"""Small models of open_clip's families in `local-dir:` form: the miniature in other clothes.

A part that the miniature has too, has its weights, so that there is something to begin with; the
others are random. Words are the miniature's: 14 tokens, 90 words. Pictures have 32 x 32 pixels.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from timm.models import build_model_with_cfg, register_model
from timm.models.fastvit import FastVit
from torch import nn
from transformers import RobertaConfig

from tasks.models.starting_model import WEIGHTS, ModelSettings
from tests.worlds import CLIP

VISION = {"image_size": 32, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32}
TEXT = {
    "context_length": 14,
    "vocab_size": 90,
    "width": 64,
    "heads": 2,
    "layers": 2,
    "hf_tokenizer_name": ".",
    "pad_id": 0,
}
CAUSAL = TEXT | {"pool_type": "eos", "eos_id": 3}


@register_model
def gift_small_mobile(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """An image tower of MobileCLIP's form: convolutions with batch normalisation."""
    sizes = {"layers": (1, 1), "embed_dims": (16, 32), "mlp_ratios": (2, 2)}
    mixers = {"token_mixers": ("repmixer", "attention"), "downsamples": (False, True)}
    whole = {**sizes, **mixers, **kwargs}
    return build_model_with_cfg(FastVit, "gift_small_mobile", pretrained, **whole)


FAMILIES: dict[str, dict[str, Any]] = {
    "CLIP": {"vision_cfg": VISION, "text_cfg": CAUSAL, "quick_gelu": True},
    "CustomTextCLIP": {
        "vision_cfg": VISION,
        "text_cfg": CAUSAL | {"ls_init_value": 1.0},
        "custom_text": True,
    },
    "SigLIP": {
        "vision_cfg": VISION,
        "text_cfg": TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_scale": math.log(10),
        "init_logit_bias": -10.0,
    },
    "MobileCLIP": {
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "gift_small_mobile",
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
        "text_cfg": CAUSAL,
        "custom_text": True,
    },
    "HF text": {
        "vision_cfg": VISION,
        "text_cfg": {
            "context_length": 14,
            "hf_model_name": "nobody/not-on-this-machine",
            "hf_tokenizer_name": ".",
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "mlp",
        },
    },
    "CoCa": {
        "vision_cfg": VISION
        | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}
        | {"output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 14,
            "vocab_size": 90,
            "width": 64,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
        "custom_text": True,
    },
}
RANDOM_TEXTS = ("SigLIP", "HF text", "CoCa")
"""Those whose text tower is none of the miniature's."""
PREPROCESSING = {
    "size": [32, 32],
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def write_family(name: str, folder: Path, **changes: object) -> ModelSettings:
    """Write a model of a family to `folder`; `changes` replace entries of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(CLIP / file, folder / file)
    config = {"embed_dim": 64, **FAMILIES[name], **changes}
    text = dict(config["text_cfg"])
    if "hf_model_name" in text:
        RobertaConfig(
            vocab_size=90,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=20,
            pad_token_id=0,
        ).save_pretrained(folder)
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    whole = {"model_cfg": config, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, text_cfg=text)
    save_file(_weights(model, random_text=name in RANDOM_TEXTS), folder / WEIGHTS)
    return ModelSettings(architecture=f"local-dir:{folder}")


def _weights(model: nn.Module, random_text: bool) -> dict[str, torch.Tensor]:
    """The miniature's weights where they fit, else the model's own."""
    known = load_file(CLIP / WEIGHTS)
    known |= {f"text.{key}": value for key, value in known.items() if "visual" not in key}
    weights = {}
    for key, value in model.state_dict().items():
        taken = known.get(key)
        of_text = not key.startswith("visual.")
        if taken is not None and taken.shape == value.shape and not (random_text and of_text):
            value = taken.float()
        elif key.endswith(("token_embedding.weight", "word_embeddings.weight")):
            value = torch.randn_like(value)  # words as they are drawn are all alike
        elif of_text and key.endswith(("attn.out_proj.weight", "output.dense.weight")):
            value = 8 * value  # so that a text's feature says which words are in it
        weights[key] = value.clone()
    return weights
