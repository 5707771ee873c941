"""From the plain step to ours, one rearrangement a rung; each rung gives the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn.functional import embedding

from gift_core.collectives import Ranks
from gift_core.engine import make_engine, matrix_precision
from gift_core.features import trainable_parameters
from gift_core.finetune_settings import FinetuneSettings
from gift_core.objective import Objective
from gift_core.packing import PackedTexts
from gift_core.step import Anchor, gift_step
from gift_core.training import make_optimizer
from tasks.models.towers import Towers, _text_block
from tests.benchmarks.plain_step import PlainBatch, PlainState, Rearrangements, plain_step
from tests.benchmarks.worlds import Setting, World, for_gift_step, with_tokens_on

SETTINGS = FinetuneSettings(learning_rate=1e-5)
Ready = Callable[[PlainBatch], Callable[[], None]]
"""Takes a batch to where a step wants it; what it returns is the step, to be timed."""


@dataclass(frozen=True)
class Rung:
    """One way to compute a step: what it adds to the rung before, and all that is on by then.

    `on` None is `gift_core.step.gift_step` itself.
    """

    name: str
    adds: str
    on: Rearrangements | None
    precision: str = "fp32"
    compiled: bool = False


def _rungs() -> tuple[Rung, ...]:
    added = (
        ("teacher-once", "teacher's features once a task", "teacher_once"),
        ("texts-cut", "texts end behind the longest end token", "texts_cut"),
        ("prefixes", "prefixes shared, no padding, equal texts once", "prefixes_shared"),
        ("pooled", "last blocks for the pooled token alone", "last_block_pooled"),
        ("replay-first", "replay graph freed before the task's is built", "replay_first"),
        ("by-hand", "consolidation without a graph or a copy of F", "consolidated_by_hand"),
        ("fused", "fused AdamW", "adamw_fused"),
    )
    rungs = [Rung("plain", "the official order of operations", Rearrangements())]
    for name, adds, flag in added:
        rungs.append(Rung(name, adds, replace(rungs[-1].on, **{flag: True})))
    return tuple(rungs)


PLAIN, *_BETWEEN = _rungs()
OURS = Rung("gift_step", "gift_core.step.gift_step with its report", None)


def rungs_for(setting: Setting) -> tuple[Rung, ...]:
    """All rungs from plain to ours; other numbers than fp32 and compilation come last."""
    rungs = [PLAIN, *_BETWEEN, OURS]
    if setting.precision != "fp32":
        adds = f"towers in {setting.precision}"
        rungs.append(replace(OURS, name=setting.precision, adds=adds, precision=setting.precision))
    if setting.compiled:
        rungs.append(replace(rungs[-1], name="compiled", adds="torch.compile", compiled=True))
    return tuple(rungs)


class CutTexts(Towers):
    """open_clip's own layers over the positions up to the batch's longest end token."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__(clip)
        self.prunes_images = False

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """See DualEncoder."""
        clip = self.clip
        ends_K = _end_positions(clip, text)
        length = int(ends_K.max()) + 1
        x_KLD = clip.token_embedding(text[:, :length].to(self.logit_scale.device))
        x_KLD = x_KLD + clip.positional_embedding[:length]
        x_KLD = clip.transformer(x_KLD, attn_mask=clip.attn_mask[:length, :length])
        pooled_KD = clip.ln_final(x_KLD)[torch.arange(len(text)), ends_K]
        return pooled_KD @ clip.text_projection


class SharedPrefixes(Towers):
    """The tree of prefixes, but every block whole, as open_clip computes it."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__(clip)
        self.prunes_images = False

    def _packed_text_features(self, tower: nn.Module, packed: PackedTexts) -> Tensor:
        x_ND = tower.token_embedding(packed.tokens_N)
        x_ND = x_ND + embedding(packed.positions_N, tower.positional_embedding)
        for block in tower.transformer.resblocks:
            x_ND = _text_block(block, x_ND, packed)
        x_UD = embedding(packed.paths_UL[:, -1], tower.ln_final(x_ND)) @ tower.text_projection
        return embedding(packed.rows_K, x_UD)


def _end_positions(clip: CLIP, tokens_KL: Tensor) -> Tensor:
    is_eos = clip.text_pool_type == "eos"
    return (tokens_KL == clip.text_eos_id).int().argmax(-1) if is_eos else tokens_KL.argmax(-1)


def encoder_for(clip: CLIP, on: Rearrangements) -> nn.Module:
    """Choose how the student's towers are computed."""
    if on.last_block_pooled:
        return Towers(clip)
    if on.prefixes_shared:
        return SharedPrefixes(clip)
    return CutTexts(clip) if on.texts_cut else clip


@dataclass(eq=False)
class Weights:
    """One student with all that a step of any rung needs beside it; rungs may share it."""

    world: World
    clip: nn.Module = field(init=False)
    anchor: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.clip = self.world.fresh_clip()
        self.anchor = {n: p.detach().clone() for n, p in self.clip.named_parameters()}

    @cached_property
    def teacher(self) -> nn.Module:
        """A second whole model, only for rungs that run it."""
        return self.world.fresh_clip().eval().requires_grad_(False)

    @cached_property
    def plain_optimizer(self) -> torch.optim.Optimizer:
        """AdamW as torch builds it when nothing is said."""
        return torch.optim.AdamW(
            trainable_parameters(self.clip).values(),
            lr=SETTINGS.learning_rate,
            betas=SETTINGS.betas,
            weight_decay=SETTINGS.weight_decay,
        )

    @cached_property
    def fused_optimizer(self) -> torch.optim.Optimizer:
        """The product's."""
        return make_optimizer(self.clip, SETTINGS)


def steps_of(rung: Rung, weights: Weights) -> Ready:
    """Make what readies a step of these weights on a batch, computed a rung's way."""
    if rung.on is None:
        return _gift_steps_of(rung, weights)
    on, device = rung.on, weights.world.device
    state = PlainState(
        student=encoder_for(weights.clip, on),
        teacher=None if on.teacher_once else weights.teacher,
        anchor=weights.anchor,
        optimizer=weights.fused_optimizer if on.adamw_fused else weights.plain_optimizer,
    )

    def ready(batch: PlainBatch) -> Callable[[], None]:
        there = batch if on.texts_cut else with_tokens_on(batch, device)
        return partial(plain_step, state, there, on)

    return ready


def _gift_steps_of(rung: Rung, weights: Weights) -> Ready:
    towers = Towers(weights.clip)
    if rung.compiled:
        towers.compile_()
    engine = make_engine(towers, rung.precision, Ranks(), weights.world.device)
    anchor = Anchor(tuple(weights.anchor[name] for name in trainable_parameters(towers)))

    def ready(batch: PlainBatch) -> Callable[[], None]:
        task, replay = for_gift_step(batch)

        def step() -> None:
            with matrix_precision(rung.precision):
                optimizer = weights.fused_optimizer
                gift_step(towers, optimizer, task, replay, anchor, Objective(), engine)

        return step

    return ready


def largest_differences(one: nn.Module, other: nn.Module) -> tuple[float, float]:
    """Find the largest difference of any weight but the attentions' key biases, and of those.

    A key's bias adds the same to all scores of a query, which softmax ignores: its gradient is
    exactly zero, so what arrives is rounding, and Adam makes whole steps of that in any order of
    operations. Only in fp64 is the rounding below Adam's epsilon.
    """
    weights, key_biases = [0.0], [0.0]
    theirs = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        apart = (parameter - theirs[name]).detach().abs()
        if name.endswith("in_proj_bias"):
            queries, keys, values = apart.chunk(3)
            key_biases.append(keys.max().item())
            apart = torch.maximum(queries, values)
        weights.append(apart.max().item())
    return max(weights), max(key_biases)
