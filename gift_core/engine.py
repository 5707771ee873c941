"""How a step is computed, never what: in which numbers, compiled or not, by how many processes.

Shapes: b images of this rank, B of all ranks, K texts of the batch, L tokens, D features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from gift_core.collectives import Ranks, gather_rows
from gift_core.errors import SettingsError
from gift_core.features import DualEncoder, encode_images, encode_texts

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Of the towers' arithmetic; weights, gradients, Fisher information and losses stay fp32.

fp32: exact. tf32: matrix products of fp32 numbers with 10 bits of mantissa, on CUDA. bf16: 8 bits,
half the memory. fp16: 11 bits and a small range: the loss is scaled, an overflow skips a step.
"""

BothFeatures = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ALONE = Ranks()
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class BothTowers(nn.Module):
    """The one forward pass of a step, as a module: what DistributedDataParallel can hold."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_bCHW: Tensor, tokens_KL: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of images (b, D) and of texts (K, D)."""
        return encode_images(self.model, images_bCHW), encode_texts(self.model, tokens_KL)


@dataclass(frozen=True, eq=False)
class Engine:
    """How a step is computed; the default is one process in the model's own numbers."""

    both: BothFeatures
    precision: Precision = "fp32"
    ranks: Ranks = ALONE
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))

    def encode(self, images_bCHW: Tensor, tokens_KL: Tensor) -> tuple[Tensor, Tensor]:
        """Encode this rank's images and everybody's texts, as the unit vectors of all ranks.

        Returns (B, D) and (K, D), at least fp32, with a graph to this rank's part: each rank
        encodes its share of the texts.
        """
        dtype = AUTOCAST.get(self.precision)
        device = images_bCHW.device.type
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            images_bD, texts_kD = self.both(images_bCHW, self.ranks.share_of(tokens_KL))
        images_BD = gather_rows(images_bD, self.ranks)
        return images_BD, gather_rows(texts_kD, self.ranks)[: len(tokens_KL)]

    @property
    def loss_scale(self) -> float:
        """What losses and gradients are multiplied by until the update: 1 but with fp16."""
        return float(self.scaler.get_scale())


def plain_engine(student: DualEncoder) -> Engine:
    """Build the default: one process, the model's own numbers, nothing compiled."""
    return Engine(BothTowers(student))


def make_engine(
    student: DualEncoder, precision: Precision, ranks: Ranks, device: torch.device
) -> Engine:
    """Build the engine of a training run; with several ranks the process group must stand.

    Every rank must hold the same weights: they are taken from rank 0. Gradients are then averaged
    over the ranks while the backward pass still runs. Raises SettingsError where the device does
    not know the precision.
    """
    if precision == "tf32" and device.type != "cuda":
        raise SettingsError(f"precision: tf32 needs CUDA, not {device.type}; choose fp32")
    both: nn.Module = BothTowers(student)
    if ranks.size > 1:
        both = nn.parallel.DistributedDataParallel(
            both, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    scaler = GradScaler(device.type, enabled=precision == "fp16")
    return Engine(cast(BothFeatures, both), precision, ranks, scaler)


def default_precision(device: torch.device) -> Precision:
    """bf16 on CUDA, where it is several times faster; fp32 elsewhere."""
    return "bf16" if device.type == "cuda" else "fp32"


@contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Let CUDA multiply fp32 matrices as tf32 for as long as it is asked for, and not otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
