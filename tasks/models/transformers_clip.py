"""An open_clip model as a `CLIPModel` of transformers: weights, tokenizer and preprocessing.

Only a model whose parts `CLIPModel` has can be one; of any other, SettingsError says which part.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import LayerScale, QuickGELU
from torch import Tensor, nn

from gift_core.errors import SettingsError
from tasks.models.encoders import Encoder, load_encoder
from tasks.models.starting_model import LOCAL_DIR

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase

START, END = "<|startoftext|>", "<|endoftext|>"
"""transformers' names of the two tokens that open_clip's own tokenizer adds."""
HIGHEST = 2
"""The end token's number by which `CLIPModel` pools the token with the highest number of all."""
INTERPOLATION = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers, which transformers keeps."""

Weights = Iterator[tuple[str, Tensor]]


def export_transformers(source: Path, folder: Path) -> None:
    """Write the model kept in `source` (local-dir form) to `folder`, which is there and empty.

    `CLIPModel.from_pretrained(folder)` then gives the same features, and
    `CLIPProcessor.from_pretrained(folder)` the same inputs. Raises SettingsError where `CLIPModel`
    has no such tower, StoreError when `source` cannot be loaded.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor  # seconds: only where asked
    from transformers.utils import CONFIG_NAME

    encoder = load_encoder(source, torch.device("cpu"))
    _check_towers(encoder)
    tokenizer, pictures = _tokenizer(source), _image_processor(encoder)
    config = CLIPConfig(**_config(encoder))
    model = CLIPModel(config)
    model.load_state_dict(dict(_weights(encoder.model.clip)))
    model.save_pretrained(folder)
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    for path in folder.iterdir():  # the library's weights are for their owner's eyes alone
        path.chmod((folder / CONFIG_NAME).stat().st_mode)


def _check_towers(encoder: Encoder) -> None:
    clip, visual = encoder.model.clip, encoder.model.clip.visual
    text, kind = encoder.model.text_tower, type(clip).__name__
    wrong = None
    if encoder.model.logit_bias is not None:
        wrong = "it has a logit_bias (a sigmoid model: SigLIP)"
    elif not isinstance(clip, CLIP | CustomTextCLIP):
        wrong = f"it is a {kind}"
    elif not encoder.model.prunes_images:
        tower = type(getattr(visual, "trunk", visual)).__name__
        wrong = f"its image tower ({tower}) is no vision transformer that pools its class token"
    elif not encoder.model.packs_texts:
        tower = type(getattr(text, "transformer", text)).__name__
        wrong = f"its text tower ({tower}) is no causal transformer that pools its end token"
    elif isinstance(visual.ln_pre, nn.Identity) or visual.final_ln_after_pool:
        wrong = "its image tower has other normalisations"
    elif visual.image_size[0] != visual.image_size[1]:
        wrong = "its pictures are not square"
    elif getattr(text.text_projection, "bias", None) is not None:
        wrong = "its text projection has a bias"
    elif _pooled_by_end(text) and _end_token(text) == HIGHEST:
        wrong = f"its end token has the number {HIGHEST}"
    if wrong is not None:
        raise SettingsError(
            f"export: transformers' CLIPModel cannot be this model, because {wrong}; "
            "export it as open-clip"
        )


def _config(encoder: Encoder) -> dict[str, Any]:
    clip, text = encoder.model.clip, encoder.model.text_tower
    visual = clip.visual
    size = visual.output_dim
    return {
        "projection_dim": size,
        "logit_scale_init_value": float(clip.logit_scale),
        "vision_config": _tower_config(visual.transformer, visual.ln_post)
        | {
            "projection_dim": size,
            "image_size": visual.image_size[0],
            "patch_size": visual.patch_size[0],
        },
        "text_config": _tower_config(text.transformer, text.ln_final)
        | {
            "projection_dim": size,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.positional_embedding.shape[0],
            "eos_token_id": _end_token(text) if _pooled_by_end(text) else HIGHEST,
            "bos_token_id": None,
            "pad_token_id": None,
        },
    }


def _tower_config(transformer: nn.Module, norm: nn.LayerNorm) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        "hidden_size": transformer.width,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": _activation(block.mlp.gelu),
        "layer_norm_eps": norm.eps,
    }


def _activation(activation: nn.Module) -> str:
    match activation:
        case QuickGELU():
            return "quick_gelu"
        case nn.GELU(approximate="none"):
            return "gelu"
        case nn.GELU(approximate="tanh"):
            return "gelu_pytorch_tanh"
    raise SettingsError(
        f"export: transformers' CLIPModel has no activation {activation}; export it as open-clip"
    )


def _pooled_by_end(text: nn.Module) -> bool:
    kind = text.text_pool_type if isinstance(text, CLIP) else text.pool_type
    return str(kind) == "eos"


def _end_token(text: nn.Module) -> int:
    return int(text.text_eos_id if isinstance(text, CLIP) else text.eos_id)


def _weights(clip: nn.Module) -> Weights:
    """Every weight of the `CLIPModel` under its name there."""
    visual, text = clip.visual, clip if isinstance(clip, CLIP) else clip.text
    yield "logit_scale", clip.logit_scale.detach().reshape(())
    yield "visual_projection.weight", _projection(visual.proj, visual.transformer.width)
    yield "text_projection.weight", _projection(text.text_projection, text.transformer.width)
    yield "vision_model.embeddings.class_embedding", visual.class_embedding
    yield "vision_model.embeddings.patch_embedding.weight", visual.conv1.weight
    yield "vision_model.embeddings.position_embedding.weight", visual.positional_embedding
    yield "text_model.embeddings.token_embedding.weight", text.token_embedding.weight
    yield "text_model.embeddings.position_embedding.weight", text.positional_embedding
    yield from _layer("vision_model.pre_layrnorm", visual.ln_pre)  # transformers' own spelling
    yield from _layer("vision_model.post_layernorm", visual.ln_post)
    yield from _layer("text_model.final_layer_norm", text.ln_final)
    for tower, transformer in (("vision", visual.transformer), ("text", text.transformer)):
        for number, block in enumerate(transformer.resblocks):
            yield from _block(f"{tower}_model.encoder.layers.{number}", block)


def _block(name: str, block: nn.Module) -> Weights:
    yield from _layer(f"{name}.layer_norm1", block.ln_1)
    yield from _layer(f"{name}.layer_norm2", block.ln_2)
    for kind in ("weight", "bias"):
        joint = getattr(block.attn, f"in_proj_{kind}").chunk(3)
        for part, tensor in zip(("q_proj", "k_proj", "v_proj"), joint, strict=True):
            yield f"{name}.self_attn.{part}.{kind}", tensor
    yield from _layer(f"{name}.self_attn.out_proj", block.attn.out_proj, block.ls_1)
    yield from _layer(f"{name}.mlp.fc1", block.mlp.c_fc)
    yield from _layer(f"{name}.mlp.fc2", block.mlp.c_proj, block.ls_2)


def _layer(name: str, layer: nn.Module, scaled_by: nn.Module | None = None) -> Weights:
    """A layer's weight and bias; a layer scale behind it, which CLIPModel has not, is in them."""
    weight, bias = layer.weight, layer.bias
    if isinstance(scaled_by, LayerScale):
        weight, bias = scaled_by.gamma[:, None] * weight, scaled_by.gamma * bias
    yield f"{name}.weight", weight
    yield f"{name}.bias", bias


def _projection(projection: Tensor | nn.Linear | None, width: int) -> Tensor:
    if projection is None:
        return torch.eye(width)
    return projection.weight if isinstance(projection, nn.Linear) else projection.T


def _tokenizer(source: Path) -> "PreTrainedTokenizerBase":
    """The model's own tokenizer, in transformers' form."""
    from transformers import CLIPTokenizer

    ours = open_clip.get_tokenizer(f"{LOCAL_DIR}{source}")
    if not isinstance(ours, SimpleTokenizer):
        return ours.tokenizer
    if ours.clean_fn("A,  b") != "a, b" or len(ours.all_special_ids) != 2:
        raise SettingsError(
            "export: transformers' CLIPTokenizer cannot be this model's tokenizer, which cleans "
            "texts in another way; export it as open-clip"
        )
    renamed = {ours.sot_token_id: START, ours.eot_token_id: END}
    return CLIPTokenizer(
        vocab={renamed.get(number, word): number for word, number in ours.encoder.items()},
        merges=list(ours.bpe_ranks),
        model_max_length=ours.context_length,
    )


def _image_processor(encoder: Encoder) -> "CLIPImageProcessorPil":
    """The model's preprocessing, by Pillow as open_clip's is: other resizing gives other pixels."""
    from transformers import CLIPImageProcessorPil

    settings = encoder.model.clip.visual.preprocess_cfg
    size = encoder.model.clip.visual.image_size[0]
    square, mode = {"height": size, "width": size}, settings["resize_mode"] or "shortest"
    if mode == "longest":
        raise SettingsError(
            "export: transformers' CLIPImageProcessor cannot fit the longest side and pad, as this "
            "model's preprocessing does; export it as open-clip"
        )
    return CLIPImageProcessorPil(
        size={"shortest_edge": size} if mode == "shortest" else square,
        do_center_crop=mode == "shortest",
        crop_size=square,
        resample=INTERPOLATION.get(settings["interpolation"], INTERPOLATION["bicubic"]),
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )
