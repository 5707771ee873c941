"""The yardstick: a step of GIFT in the order in which the authors' code does its work.

An ordinary torch training step, written from docs/method.md: nothing in it is slow on purpose, and
nothing is spared. Every text is encoded at its full length, the teacher runs in every step, the
Fisher diagonal is a copy of the weights' size, and the consolidation goes through autograd.
`Rearrangements` switches on, one by one, what `gift_core.step` does otherwise: each of them gives
the same weights with less work, and benchmarks/ladder.py times them.

Shapes: B pairs or images, K classes, D features, L tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gift_core.consolidation import consolidate_
from gift_core.features import PairFeatures, trainable_parameters

LABEL_SMOOTHING, TEMPERATURE, ALIGNMENT_WEIGHT = 0.2, 2.0, 0.25
NO_GRADIENT_FISHER = 1e-6


@dataclass(frozen=True)
class Rearrangements:
    """Which of our changes a step makes; all off is the plain order.

    `texts_cut`, `prefixes_shared` and `last_block_pooled` live in the encoders, which ladder.py
    chooses; the others are read here.
    """

    teacher_once: bool = False
    texts_cut: bool = False
    prefixes_shared: bool = False
    last_block_pooled: bool = False
    replay_first: bool = False
    consolidated_by_hand: bool = False
    adamw_fused: bool = False


@dataclass(frozen=True, eq=False)
class PlainBatch:
    """B labelled images with all class prompts, and B synthetic pairs, each with its own tokens.

    `prompt_ids_B` is equal where prompts are. `teacher` is looked at only with `teacher_once`.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    class_tokens_KL: Tensor
    replay_images_BCHW: Tensor
    replay_tokens_BL: Tensor
    prompt_ids_B: Tensor
    teacher: PairFeatures


@dataclass(frozen=True, eq=False)
class PlainState:
    """What is learnt and what it is held to; `teacher` may be None with `teacher_once`."""

    student: nn.Module
    teacher: nn.Module | None
    anchor: dict[str, Tensor]
    optimizer: torch.optim.Optimizer


def plain_step(state: PlainState, batch: PlainBatch, on: Rearrangements) -> None:
    """Train the student by one step: the `corrected` objective, paper's weights.

    Source: docs/method.md, One step.
    """
    student = state.student
    ce = None if on.replay_first else task_loss(student, batch)
    replay = replay_loss(state, batch, on)
    state.optimizer.zero_grad()
    replay.backward()
    if on.consolidated_by_hand:
        parameters = trainable_parameters(student)
        consolidate_(list(parameters.values()), [state.anchor[n] for n in parameters], 1.0)
        ce = task_loss(student, batch) if ce is None else ce
        ce.backward()
    else:
        fisher = fisher_of(student)
        ce = task_loss(student, batch) if ce is None else ce
        (ce + consolidation_loss(student, state.anchor, fisher)).backward()
    state.optimizer.step()


def unit_features(model: nn.Module, images_BCHW: Tensor, tokens_KL: Tensor) -> PairFeatures:
    """Encode images (B, D) and texts (K, D) as unit vectors, each text for itself."""
    return PairFeatures(
        normalize(model.encode_image(images_BCHW), dim=-1),
        normalize(model.encode_text(tokens_KL), dim=-1),
    )


def task_loss(student: nn.Module, batch: PlainBatch) -> Tensor:
    """Step 1: cross entropy over all class prompts."""
    features = unit_features(student, batch.images_BCHW, batch.class_tokens_KL)
    logits_BK = similarities(student, features)
    return cross_entropy(logits_BK, batch.labels_B, label_smoothing=LABEL_SMOOTHING)


def replay_loss(state: PlainState, batch: PlainBatch, on: Rearrangements) -> Tensor:
    """Steps 2 to 4: distillation and alignment, both ways."""
    student = state.student
    if on.teacher_once:
        seen = batch.teacher
    else:
        with torch.no_grad():
            seen = unit_features(state.teacher, batch.replay_images_BCHW, batch.replay_tokens_BL)
    teacher_BB = similarities(student, seen) / TEMPERATURE
    pairs = unit_features(student, batch.replay_images_BCHW, batch.replay_tokens_BL)
    logits_BB = similarities(student, pairs)
    distillation = TEMPERATURE**2 * (
        cross_entropy(logits_BB / TEMPERATURE, teacher_BB.softmax(dim=1))
        + cross_entropy(logits_BB.T / TEMPERATURE, teacher_BB.T.softmax(dim=1))
    )
    equal_BB = (batch.prompt_ids_B[:, None] == batch.prompt_ids_B[None, :]).to(logits_BB.dtype)
    targets_BB = equal_BB / equal_BB.sum(dim=1, keepdim=True)
    alignment = cross_entropy(
        logits_BB, targets_BB, label_smoothing=LABEL_SMOOTHING
    ) + cross_entropy(logits_BB.T, targets_BB.T, label_smoothing=LABEL_SMOOTHING)
    return distillation + ALIGNMENT_WEIGHT * alignment


def similarities(student: nn.Module, features: PairFeatures) -> Tensor:
    """Multiply cosines by the frozen scale."""
    scale = student.logit_scale.detach().exp()
    return scale * features.image_features_BD @ features.text_features_BD.T


def fisher_of(student: nn.Module) -> dict[str, Tensor]:
    """Step 5: a tensor for every parameter, also where no gradient arrived."""
    fisher = {}
    for name, parameter in student.named_parameters():
        if parameter.grad is None:
            fisher[name] = torch.zeros_like(parameter) + NO_GRADIENT_FISHER
            continue
        fisher[name] = parameter.grad.clone() ** 2
        fisher[name] /= fisher[name].mean()
    return fisher


def consolidation_loss(
    student: nn.Module, anchor: dict[str, Tensor], fisher: dict[str, Tensor]
) -> Tensor:
    """Step 6, with a graph to every weight."""
    terms = [
        (fisher[name] * (parameter - anchor[name]) ** 2).sum()
        for name, parameter in student.named_parameters()
    ]
    return torch.stack(terms).sum()
