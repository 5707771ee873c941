"""A dual encoder of a few hundred weights, and batches for it; hand-made, so quick and exact.

Shapes: as in gift_core.features; L = 4 tokens, images 3 x 2 x 2, D = 5 features.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gift_core.features import (
    DualEncoder,
    PairFeatures,
    encode_images,
    encode_texts,
    trainable_parameters,
)
from gift_core.step import ReplayBatch, TaskBatch

NUM_WORDS = 11


class Tower(nn.Module):
    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([nn.Linear(num_inputs, 7), nn.Linear(7, 5)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks[1](torch.tanh(self.resblocks[0](x)))


class TinyEncoder(nn.Module):
    """Counts the texts that go through it, to show that none is encoded twice."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.visual = Tower(12)
        self.token_embedding = nn.Embedding(NUM_WORDS, 6)
        self.transformer = Tower(6)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.num_texts = 0
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name != "logit_scale":
                    parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        return _maybe_unit(self.visual(image.flatten(1)), normalize)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        self.num_texts += len(text)
        return _maybe_unit(self.transformer(self.token_embedding(text).mean(dim=1)), normalize)


def _maybe_unit(features: Tensor, unit: bool) -> Tensor:
    return normalize(features, dim=-1) if unit else features


@dataclass(frozen=True)
class Scene:
    """A teacher, and what every step of a task needs, all of one dtype and one seed."""

    teacher: TinyEncoder
    dtype: torch.dtype
    seed: int = 0

    def student(self) -> TinyEncoder:
        """Copy the teacher and freeze its logit_scale: theta_{t-1}, about to learn."""
        student = copy.deepcopy(self.teacher)
        student.logit_scale.requires_grad_(False)
        return student

    def task(self, step: int) -> TaskBatch:
        generator = self._generator(2 * step)
        return TaskBatch(
            images_bCHW=torch.randn(6, 3, 2, 2, generator=generator, dtype=self.dtype),
            labels_B=torch.randint(0, 4, (6,), generator=generator),
            class_tokens_KL=torch.arange(16).reshape(4, 4) % NUM_WORDS,
        )

    def replay(self, step: int) -> ReplayBatch:
        """Five pairs of three distinct prompts, with the frozen teacher's features."""
        generator = self._generator(2 * step + 1)
        images_BCHW = torch.randn(5, 3, 2, 2, generator=generator, dtype=self.dtype)
        prompt_tokens_PL = torch.randint(0, NUM_WORDS, (3, 4), generator=generator)
        prompt_ids_B = torch.tensor([2, 0, 2, 1, 0])
        with torch.no_grad():
            teacher = PairFeatures(
                encode_images(self.teacher, images_BCHW),
                encode_texts(self.teacher, prompt_tokens_PL[prompt_ids_B]),
            )
        return ReplayBatch(images_BCHW, prompt_tokens_PL, prompt_ids_B, teacher)

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + index + 1)


def scene(dtype: torch.dtype = torch.float64, seed: int = 0) -> Scene:
    return Scene(TinyEncoder(seed).to(dtype), dtype, seed)


def trained(model: DualEncoder) -> list[nn.Parameter]:
    return list(trainable_parameters(model).values())


def sgd(model: DualEncoder) -> torch.optim.Optimizer:
    return torch.optim.SGD(trained(model), lr=0.05)


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of any weight."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)
