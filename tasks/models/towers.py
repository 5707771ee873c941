"""open_clip's two towers, computed with no more arithmetic than the result needs.

The weights, names and results are open_clip's; only what cannot reach the result is left out:

- of a text, what stands behind its pooled token, and what another text has already computed
  (`gift_core.packing`);
- in the last block of each tower, everything but the token that is pooled.

A tower that is built otherwise (a residual network, one of timm or of transformers, a text tower
without a causal mask, as SigLIP's) runs as open_clip runs it, over the full length of its texts.

Batch normalisation keeps the statistics that it was trained with, also while a task is learnt:
else a batch's features would depend on its other images, and a student would begin apart from its
teacher.

Letters: B images, T tokens of an image, K texts, U distinct ones, L tokens of the longest, N nodes,
H heads, D width.
"""

from collections.abc import Iterator
from typing import Self

import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    Transformer,
    VisionTransformer,
)
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from gift_core.packing import PackedTexts, pack_texts
from tasks.models.split_attention import (
    joint_query_key_value,
    query_and_key_value,
    query_key_value,
)


class Towers(nn.Module):
    """An open_clip model whose `encode_image` and `encode_text` waste nothing.

    Token numbers are expected on the CPU: the tree of prefixes is built there, and only what the
    device needs is moved. Parameters have open_clip's own names.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self._recompute = False
        self._image_features = self._pruned_image_features
        self._text_features = self._packed_text_features
        self.packs_texts = _is_causal(_text_tower(clip))
        self.prunes_images = _is_plain_vision(clip.visual)
        if isinstance(clip, CoCa):
            clip.text_decoder.requires_grad_(False)  # it writes captions: no feature depends on it

    @property
    def recompute(self) -> bool:
        """Keep only the blocks' inputs and compute the rest again in the backward pass."""
        return self._recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self._recompute = value
        if value:  # for a tower that runs as its library runs it, where that can do so
            self.clip.set_grad_checkpointing(True)

    @property
    def logit_scale(self) -> Tensor:
        """See DualEncoder."""
        return self.clip.logit_scale

    @property
    def logit_bias(self) -> Tensor | None:
        """A sigmoid model's, see `logit_bias_of`; None in all others."""
        return getattr(self.clip, "logit_bias", None)

    @property
    def text_tower(self) -> nn.Module:
        """The module that holds the text tower's parts: a CLIP itself, or another's `text`."""
        return _text_tower(self.clip)

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`, but batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.clip.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's own, under its own names: this class adds none."""
        return self.clip.named_parameters(prefix, recurse, remove_duplicate)

    def compile_(self, **options: object) -> None:
        """Let torch compile both towers when they are first used; the number of nodes varies."""
        self._image_features = torch.compile(self._pruned_image_features, **options)
        self._text_features = torch.compile(self._packed_text_features, dynamic=True, **options)

    def compile_or_say_why(self, image_BCHW: Tensor, tokens_KL: Tensor) -> str | None:
        """Compile both towers and try them, backward too; the reason where that does not work.

        Everything is then as it was: the towers run uncompiled, and no gradient is left.
        """
        reason = None
        try:
            self.compile_()
            with torch.random.fork_rng():
                features = (self.encode_image(image_BCHW), self.encode_text(tokens_KL))
                torch.stack([one.square().sum() for one in features]).sum().backward()
        except Exception as error:  # a compiler fails in as many ways as there are compilers
            self._image_features = self._pruned_image_features
            self._text_features = self._packed_text_features
            text = str(error).strip().partition("\n")[0][:300]
            reason = f"{type(error).__name__}: {text}"
        self.zero_grad(set_to_none=True)
        return reason

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """See DualEncoder."""
        features = (
            self._image_features(image) if self.prunes_images else self.clip.encode_image(image)
        )
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """See DualEncoder."""
        device = self.logit_scale.device
        if self.packs_texts:
            tower = _text_tower(self.clip)
            packed = pack_texts(text.cpu(), _pooled_positions(self.clip, text.cpu())).to(device)
            features = self._text_features(tower, packed)
        else:
            features = self.clip.encode_text(text.to(device))
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def _pruned_image_features(self, images_BCHW: Tensor) -> Tensor:
        """Features (B, D); the last block computes the class token alone."""
        visual = self.clip.visual
        x_BTD = visual._embeds(images_BCHW)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x_BTD = self._run(_image_block, block, x_BTD)
        x_BD = visual.ln_post(self._run(_last_image_block, last, x_BTD))
        return x_BD if visual.proj is None else x_BD @ visual.proj

    def _packed_text_features(self, tower: nn.Module, packed: PackedTexts) -> Tensor:
        """Features (K, D); the last block computes the pooled tokens alone."""
        x_ND = tower.token_embedding(packed.tokens_N)
        x_ND = x_ND + embedding(packed.positions_N, tower.positional_embedding)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x_ND = self._run(_text_block, block, x_ND, packed)
        x_UD = tower.ln_final(self._run(_last_text_block, last, x_ND, packed))
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            x_UD = projection(x_UD)
        elif projection is not None:
            x_UD = x_UD @ projection
        return embedding(packed.rows_K, x_UD)

    def _run(self, function, *arguments):  # noqa: ANN001, ANN002, ANN202 - as of `function`
        if self._recompute and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def _image_block(block: ResidualAttentionBlock, x_BTD: Tensor) -> Tensor:
    attention = block.attn
    num_images, num_tokens, _ = x_BTD.shape
    # Split, not viewed as one tensor of three: the backward pass then copies the gradients once.
    q, k, v = (
        part.view(num_images, num_tokens, attention.num_heads, -1).transpose(1, 2)
        for part in query_key_value(attention, block.ln_1(x_BTD))
    )
    mixed_BTD = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x_BTD.shape)
    return _after_attention(block, x_BTD, mixed_BTD)


def _last_image_block(block: ResidualAttentionBlock, x_BTD: Tensor) -> Tensor:
    """The class token of each image alone (B, D): only its keys and values need the others."""
    attention = block.attn
    num_images, num_tokens, width = x_BTD.shape
    normed_BTD = block.ln_1(x_BTD)
    q, kv = query_and_key_value(attention, normed_BTD[:, :1], normed_BTD)
    q = q.view(num_images, 1, attention.num_heads, -1).transpose(1, 2)
    k, v = kv.view(num_images, num_tokens, 2, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed_BD = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(num_images, width)
    return _after_attention(block, x_BTD[:, 0], mixed_BD)


def _text_block(block: ResidualAttentionBlock, x_ND: Tensor, packed: PackedTexts) -> Tensor:
    """Layers run over the nodes, attention over the texts; each node is taken from one text."""
    attention = block.attn
    num_texts, length = packed.paths_UL.shape
    qkv = embedding(packed.paths_UL, joint_query_key_value(attention, block.ln_1(x_ND)))
    q, k, v = qkv.view(num_texts, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    mixed_ND = embedding(packed.places_N, mixed.reshape(num_texts * length, -1))
    return _after_attention(block, x_ND, mixed_ND)


def _last_text_block(block: ResidualAttentionBlock, x_ND: Tensor, packed: PackedTexts) -> Tensor:
    """The pooled token of each distinct text alone (U, D)."""
    attention = block.attn
    num_texts, length = packed.paths_UL.shape
    width = x_ND.shape[1]
    normed_ND = block.ln_1(x_ND)
    ends_U = packed.paths_UL[:, -1]  # the filling repeats the pooled token
    q, kv_N = query_and_key_value(attention, embedding(ends_U, normed_ND), normed_ND)
    q = q.view(num_texts, 1, attention.num_heads, -1).transpose(1, 2)
    kv = embedding(packed.paths_UL, kv_N)
    k, v = kv.view(num_texts, length, 2, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    positions_L = torch.arange(length, device=x_ND.device)
    inside = (positions_L[None, :] <= packed.ends_U[:, None])[:, None, None, :]
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=inside)
    mixed_UD = mixed.transpose(1, 2).reshape(num_texts, width)
    return _after_attention(block, embedding(ends_U, x_ND), mixed_UD)


def _after_attention(block: ResidualAttentionBlock, x: Tensor, mixed: Tensor) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _text_tower(clip: nn.Module) -> nn.Module:
    """The module that holds the text tower's parts: a CLIP itself, or another model's `text`."""
    return clip if isinstance(clip, CLIP) else getattr(clip, "text", clip)


def _pooled_positions(clip: nn.Module, tokens_KL: Tensor) -> Tensor:
    tower = _text_tower(clip)
    kind, eos = (
        (tower.text_pool_type, tower.text_eos_id)
        if isinstance(tower, CLIP)
        else (tower.pool_type, tower.eos_id)
    )
    pooled = (tokens_KL == eos).int() if kind == "eos" else tokens_KL
    return pooled.argmax(dim=-1)


def _is_causal(tower: nn.Module) -> bool:
    """Whether a text's feature is that of its end token, which sees only what stands before it."""
    if isinstance(tower, CLIP):
        plain = tower.text_pool_type in ("argmax", "eos")
    elif isinstance(tower, TextTransformer):
        plain = (
            tower.pool_type in ("argmax", "eos")
            and tower.cls_emb is None
            and not tower.use_pad_mask
            and not tower.output_tokens
        )
    else:
        return False
    return plain and tower.attn_mask is not None and _has_plain_blocks(tower.transformer)


def _is_plain_vision(visual: nn.Module) -> bool:
    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and _has_plain_blocks(visual.transformer)
    )


def _has_plain_blocks(transformer: nn.Module) -> bool:
    return type(transformer) is Transformer and all(
        type(block) is ResidualAttentionBlock
        and block.attn.in_proj_weight is not None
        and block.attn.in_proj_bias is not None
        and block.attn.dropout == 0.0
        for block in transformer.resblocks
    )
