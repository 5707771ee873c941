"""The Fisher diagonal: which parameters the replay pairs depend on, and what moved by block."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_core.engine import plain_engine
from gift_core.errors import DataError, SettingsError
from gift_core.features import DualEncoder, trainable_parameters
from gift_core.normalised import unit_mean
from gift_core.objective import Objective
from gift_core.replay import ReplayBatch, replay_losses
from gift_core.step import TaskBatch, classification_logits, classification_loss


@dataclass(frozen=True)
class BlockDrift:
    """How far one block of parameters moved while a task was learnt; no units.

    `distance` is the L2 norm of the change, `relative` the same over the norm before (0 when the
    block was all zero before), `weighted` the root of sum(F * change^2) with F the Fisher
    diagonal, normalised to mean 1 in every parameter tensor.
    """

    block: str
    num_parameters: int
    distance: float
    relative: float
    weighted: float


def estimate_fisher(
    student: DualEncoder, batches: Iterable[ReplayBatch], objective: Objective
) -> dict[str, Tensor]:
    """Average the squared gradient of the weighted replay losses over batches, by parameter.

    Not normalised; fp32, shaped as the parameters, names and order of `trainable_parameters`.
    The student's `.grad` and mode stay as they are. Raises SettingsError when the objective has
    no replay loss and DataError when there is no batch. Source: docs/method.md step 5.
    """
    if not objective.has_replay_loss:
        raise SettingsError(
            "objective: the weights of distillation and alignment are both 0, so there is no "
            "Fisher information to estimate; give one of them a weight"
        )
    engine = plain_engine(student)
    replayed = (replay_losses(student, replay, objective, engine) for replay in batches)
    return _mean_squares(student, (losses.distillation + losses.alignment for losses in replayed))


def estimate_task_fisher(student: DualEncoder, batches: Iterable[TaskBatch]) -> dict[str, Tensor]:
    """Average the squared gradient of the task loss over batches of labelled images, by parameter.

    True labels, no smoothing; otherwise as `estimate_fisher`. Raises DataError when there is no
    batch. Source: docs/method.md, EWC.
    """
    engine = plain_engine(student)
    return _mean_squares(
        student,
        (
            classification_loss(classification_logits(student, task, engine), task.labels_B, 0.0)
            for task in batches
        ),
    )


def _mean_squares(student: DualEncoder, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Average the squared gradients of losses, each made when the one before is done with."""
    parameters = trainable_parameters(student)
    sums = [torch.zeros_like(p, dtype=torch.float32) for p in parameters.values()]
    num_batches = 0
    for loss in losses:
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        _add_squares_(sums, gradients)
        num_batches += 1
    if num_batches == 0:
        raise DataError(
            "Fisher estimate: there is no batch of replay pairs or images; give at least one"
        )
    return {name: total / num_batches for name, total in zip(parameters, sums, strict=True)}


def block_of(parameter_name: str) -> str:
    """Name a parameter's block: its layer where layers are numbered, else its module.

    "visual.transformer.resblocks.3.mlp.c_fc.weight" is in "visual.transformer.resblocks.3",
    "visual.conv1.weight" in "visual.conv1", "positional_embedding" in itself.
    """
    parts = parameter_name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    if len(parts) > 1 and parts[-1] in ("weight", "bias"):
        return ".".join(parts[:-1])
    return parameter_name


def block_drift(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], fisher: Mapping[str, Tensor]
) -> list[BlockDrift]:
    """Measure how far every block moved from `before` to `after`, in the order of `fisher`.

    `fisher` names the parameters that count, as `estimate_fisher` does, and need not be
    normalised; other tensors of `before` and `after` are ignored. Sums are taken in fp64 on the
    CPU. Raises DataError when a tensor is missing or has another shape. Source: docs/method.md
    step 5.
    """
    blocks: dict[str, list[str]] = {}
    for name in fisher:
        _check_tensor(name, before, after, fisher)
        blocks.setdefault(block_of(name), []).append(name)
    return [_drift_of(block, names, before, after, fisher) for block, names in blocks.items()]


def _drift_of(
    block: str,
    names: Sequence[str],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor],
) -> BlockDrift:
    moved, held, weighted = 0.0, 0.0, 0.0
    for name in names:
        start, end, squares = (_exact(mapping[name]) for mapping in (before, after, fisher))
        squared_change = (end - start).square()
        importance = unit_mean(squares)
        moved += float(squared_change.sum())
        held += float(start.square().sum())
        weighted += float((importance * squared_change).sum())
    return BlockDrift(
        block=block,
        num_parameters=sum(before[name].numel() for name in names),
        distance=moved**0.5,
        relative=(moved / held) ** 0.5 if held > 0.0 else 0.0,
        weighted=weighted**0.5,
    )


def _exact(tensor: Tensor) -> Tensor:
    """In fp64 on the CPU: not every device knows fp64, and the two models may lie on two."""
    return tensor.detach().cpu().double()


def _check_tensor(name: str, *mappings: Mapping[str, Tensor]) -> None:
    shapes = []
    for mapping, where in zip(mappings, ("before", "after", "fisher"), strict=True):
        if name not in mapping:
            raise DataError(f"drift: {name} is missing from `{where}`; give both models whole")
        shapes.append(tuple(mapping[name].shape))
    if len(set(shapes)) != 1:
        raise DataError(
            f"drift: {name} has the shapes {shapes[0]} before, {shapes[1]} after and {shapes[2]} "
            "in the Fisher diagonal; compare models of one architecture"
        )


@torch.no_grad()
def _add_squares_(sums: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for total, gradient in zip(sums, gradients, strict=True):
        fp32 = gradient.to(total.dtype)
        total.addcmul_(fp32, fp32)
