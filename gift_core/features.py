"""The two towers: images and texts as unit vectors, and how similar they are.

Shapes: B images or pairs, K classes or prompts, D features, C x H x W an image's channels, height
and width, L tokens of a text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize as unit_vectors


class DualEncoder(Protocol):
    """What the method asks of a model: two encoders, a scale, and torch's own module methods.

    `open_clip.model.CLIP` is one; so is any `torch.nn.Module` with the first three members. The
    last three are `torch.nn.Module`'s, named here so that a caller's types need no intersection. A
    model that was trained with a sigmoid loss has one member more, see `logit_bias_of`.
    """

    @property
    def logit_scale(self) -> Tensor:
        """Log of the factor of cosine similarities, scalar; frozen by the method."""

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Features (B, D) of images (B, C, H, W)."""

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Features (B, D) of token numbers (B, L), which may lie on the CPU."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """As in `torch.nn.Module`."""

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`."""

    def eval(self) -> Self:
        """As in `torch.nn.Module`."""


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Unit vectors of B images and of their prompts: row i of both belongs to pair i."""

    image_features_BD: Tensor
    text_features_BD: Tensor


def encode_images(model: DualEncoder, images_BCHW: Tensor) -> Tensor:
    """Encode images (B, C, H, W), preprocessed for the model, as unit vectors (B, D).

    The dtype is the model's, but at least fp32. Source: docs/method.md, One step.
    """
    return unit_vectors(_at_least_fp32(model.encode_image(images_BCHW)), dim=-1)


def encode_texts(model: DualEncoder, tokens_BL: Tensor) -> Tensor:
    """Encode token numbers (B, L), int64, as unit vectors (B, D).

    The dtype is the model's, but at least fp32. Source: docs/method.md, One step.
    """
    return unit_vectors(_at_least_fp32(model.encode_text(tokens_BL)), dim=-1)


def similarity(
    a_BD: Tensor, b_KD: Tensor, scale: Tensor | float, bias: Tensor | None = None
) -> Tensor:
    """Compute logits (B, K): `scale` times the cosine of each row of `a_BD` and of `b_KD`.

    Both are unit vectors; `scale` is exp(logit_scale), no unit. `bias`, a sigmoid model's
    logit_bias, is added to every logit. Source: docs/method.md steps 1, 2, and Sigmoid models.
    """
    logits_BK = scale * a_BD @ b_KD.T
    return logits_BK if bias is None else logits_BK + bias


def logit_bias_of(model: DualEncoder) -> Tensor | None:
    """Give the logit_bias of a model that was trained with a sigmoid loss (SigLIP), detached.

    None for a model whose loss was a softmax: it has no such member, or None for it. Source:
    docs/method.md, Sigmoid models.
    """
    bias: Tensor | None = getattr(model, "logit_bias", None)
    return None if bias is None else bias.detach()


def trainable_parameters(model: DualEncoder) -> dict[str, Parameter]:
    """Collect every parameter that requires a gradient, by name, in the model's order.

    Never `logit_scale` and `logit_bias`, which the method freezes. Source: docs/method.md, One
    step.
    """
    frozen = (model.logit_scale, getattr(model, "logit_bias", None))
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(parameter is each for each in frozen)
    }


def _at_least_fp32(features_BD: Tensor) -> Tensor:
    """Half-precision towers give half-precision features; similarities are taken in fp32."""
    return features_BD.to(torch.promote_types(features_BD.dtype, torch.float32))


def freeze_logit_scale_(model: DualEncoder) -> None:
    """Stop training the model's logit_scale, and its logit_bias where it has one.

    Source: docs/method.md, One step.
    """
    model.logit_scale.requires_grad_(False)
    bias: Tensor | None = getattr(model, "logit_bias", None)
    if bias is not None:
        bias.requires_grad_(False)
