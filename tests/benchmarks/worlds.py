"""What both sides of a benchmark are given: a model, prompts, and batches of random images.

Shapes: B images or pairs, K classes, N prompts of the pool, L tokens.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from deployments.miniature.vocabulary import PRETRAINING
from gift_core.features import PairFeatures, freeze_logit_scale_
from gift_core.step import ReplayBatch, TaskBatch
from tests.benchmarks.plain_step import PlainBatch, unit_features

ROOT = Path(__file__).resolve().parents[2]
MINIATURE = f"local-dir:{ROOT / 'deployments' / 'miniature' / 'clip'}"
TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Setting:
    """What is measured; the defaults fit two cores and 24 GiB."""

    model: str = "ViT-B-16"
    task_batch: int = 8
    replay_batch: int = 8
    classes: int = 100
    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    repeats: int = 3
    threads: int | None = None
    """None: all cores."""

    def prepare(self) -> None:
        """Let torch compute as asked: so many threads, and no fp32 product rounded to TF32."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


@dataclass(frozen=True, eq=False)
class World:
    """A model's first weights, its prompts, and how large a batch is."""

    clip: nn.Module
    class_tokens_KL: Tensor
    pool_tokens_NL: Tensor
    setting: Setting

    @property
    def device(self) -> torch.device:
        """Where the model lies and images go; tokens stay on the CPU."""
        return self.clip.logit_scale.device

    def fresh_clip(self) -> nn.Module:
        """Copy the first weights, ready to be trained."""
        return copy.deepcopy(self.clip).train()

    def batch(self, number: int) -> PlainBatch:
        """Draw batch `number`, the same at every call, with what the teacher sees of it."""
        generator = torch.Generator().manual_seed(1000 + number)
        size, setting = self.clip.visual.image_size, self.setting
        dtype = self.clip.logit_scale.dtype

        def images(count: int) -> Tensor:
            drawn = torch.randn(count, 3, *size, generator=generator, dtype=dtype)
            return drawn.to(self.device)

        def numbers(below: int, count: int) -> Tensor:
            return torch.randint(0, below, (count,), generator=generator)

        replay_images_BCHW = images(setting.replay_batch)
        ids_B = numbers(len(self.pool_tokens_NL), setting.replay_batch)
        tokens_BL = self.pool_tokens_NL[ids_B]
        return PlainBatch(
            images_BCHW=images(setting.task_batch),
            labels_B=numbers(len(self.class_tokens_KL), setting.task_batch).to(self.device),
            class_tokens_KL=self.class_tokens_KL,
            replay_images_BCHW=replay_images_BCHW,
            replay_tokens_BL=tokens_BL,
            prompt_ids_B=ids_B.to(self.device),
            teacher=self._teacher_features(replay_images_BCHW, tokens_BL),
        )

    @torch.no_grad()
    def _teacher_features(self, images_BCHW: Tensor, tokens_BL: Tensor) -> PairFeatures:
        """The first weights are the teacher's; seen once, outside every timing."""
        return unit_features(self.clip, images_BCHW, tokens_BL.to(self.device))


def with_tokens_on(batch: PlainBatch, device: torch.device) -> PlainBatch:
    """Move the tokens to where open_clip's own model wants them."""
    return replace(
        batch,
        class_tokens_KL=batch.class_tokens_KL.to(device),
        replay_tokens_BL=batch.replay_tokens_BL.to(device),
    )


def for_gift_step(batch: PlainBatch) -> tuple[TaskBatch, ReplayBatch]:
    """The same batch as the product's loaders give it: each distinct prompt once."""
    ids_P, rows_B = torch.unique(batch.prompt_ids_B.cpu(), return_inverse=True)
    first_P = [int((rows_B == row).nonzero()[0]) for row in range(len(ids_P))]
    replay = ReplayBatch(
        images_bCHW=batch.replay_images_BCHW,
        prompt_tokens_PL=batch.replay_tokens_BL[first_P],
        prompt_ids_B=rows_B.to(batch.prompt_ids_B.device),
        teacher=batch.teacher,
    )
    return TaskBatch(batch.images_BCHW, batch.labels_B, batch.class_tokens_KL), replay


def build_world(setting: Setting) -> World:
    """Build the model of a setting with random weights (the miniature: its own) and its prompts."""
    logging.disable(logging.WARNING)  # open_clip warns that nothing was pretrained: on purpose
    try:
        torch.manual_seed(0)
        clip = open_clip.create_model(setting.model, precision="fp32", device=setting.device)
        tokenize: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(setting.model)
    finally:
        logging.disable(logging.NOTSET)
    freeze_logit_scale_(clip)
    names = PRETRAINING if setting.model == MINIATURE else open_clip.IMAGENET_CLASSNAMES
    pool_NL = torch.as_tensor(tokenize([TEMPLATE.format(name) for name in names]))
    return World(clip.train(), pool_NL[: setting.classes], pool_NL, setting)
