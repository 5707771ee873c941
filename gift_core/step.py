"""One step of GIFT, numbered as in docs/method.md.

Shapes: B images or pairs of a batch, b of them on this rank, K classes of the task, P distinct
prompts of the batch, D features, C x H x W an image's channels, height and width, L tokens of a
prompt.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gift_core.averaging import RunningMean
from gift_core.consolidation import add_consolidation_gradient_, consolidate_
from gift_core.engine import Engine, plain_engine
from gift_core.errors import DataError, Diverged, SettingsError
from gift_core.features import DualEncoder, similarity, trainable_parameters
from gift_core.normalised import normalised_fisher
from gift_core.objective import Objective
from gift_core.pieces import sums_of_squares
from gift_core.replay import ReplayBatch as ReplayBatch
from gift_core.replay import ReplayLosses, replay_losses


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """Labelled images of the task that is being learnt, and the prompts of all its classes.

    `images_bCHW` is floating, preprocessed for the model: all images, or this rank's rows of them
    where several compute a step. The rest is the whole batch's: `labels_B` is int64, a row of
    `class_tokens_KL`, int64.
    """

    images_bCHW: Tensor
    labels_B: Tensor
    class_tokens_KL: Tensor

    def check(self, num_ranks: int) -> None:
        """DataError unless this rank's images are an even share of the batch's."""
        if len(self.images_bCHW) * num_ranks != len(self.labels_B):
            raise DataError(
                f"task batch: {len(self.images_bCHW)} images on each of {num_ranks} ranks but "
                f"{len(self.labels_B)} labels; give one label an image, evenly shared"
            )


@dataclass(frozen=True, eq=False)
class Anchor:
    """The weights before the task, theta_{t-1}, in the order of `trainable_parameters`.

    `fisher` says, in the same order and shapes, how strongly each weight is held where the
    consolidation is not computed anew at every step: given for ewc, growing for static.
    """

    parameters: tuple[Tensor, ...]
    fisher: RunningMean | None = None

    @classmethod
    def of(cls, model: DualEncoder) -> Self:
        """Copy the model's trainable parameters as they are now, without a graph."""
        parameters = trainable_parameters(model).values()
        return cls(tuple(parameter.detach().clone() for parameter in parameters))


@dataclass(frozen=True)
class StepReport:
    """What one step did, as plain numbers taken before the weights moved.

    Losses are in nats and times their weights, so that the four add up to the corrected
    objective; as-published's doubling is not in them. `gradient_norm` is the L2 norm of the whole
    gradient applied; None, and the consolidation loss 0, when an fp16 gradient overflowed and the
    update was skipped. Accuracies are in percent: the task's over its classes, the replay pairs'
    over the batch's prompts; `replay_accuracy` is None in a step without replay.
    """

    task_loss: float
    distillation_loss: float
    alignment_loss: float
    consolidation_loss: float
    learning_rate: float
    gradient_norm: float | None
    task_accuracy: float
    replay_accuracy: float | None


def classification_logits(student: DualEncoder, task: TaskBatch, engine: Engine) -> Tensor:
    """Compute logits (B, K) of images over the task's classes; each prompt is encoded once.

    Source: docs/method.md step 1.
    """
    task.check(engine.ranks.size)
    images_BD, prompts_KD = engine.encode(task.images_bCHW, task.class_tokens_KL)
    return similarity(images_BD, prompts_KD, student.logit_scale.detach().exp())


def classification_loss(logits_BK: Tensor, labels_B: Tensor, label_smoothing: float) -> Tensor:
    """Compute cross entropy with smoothed labels: a scalar in nats, the mean of the batch.

    `logits_BK` is floating, `labels_B` int64, `label_smoothing` a share from 0 to below 1.
    Source: docs/method.md step 1.
    """
    return cross_entropy(logits_BK, labels_B, label_smoothing=label_smoothing)


def gift_step(
    student: DualEncoder,
    optimizer: torch.optim.Optimizer,
    task: TaskBatch,
    replay: ReplayBatch | None,
    anchor: Anchor,
    objective: Objective,
    engine: Engine | None = None,
) -> StepReport:
    """Train the student by one step and say what happened.

    `replay` may be None, and is not looked at, when `objective.uses_replay` is false; `anchor` is
    not looked at when the consolidation's weight is 0. `engine` says how it is computed (default:
    one process, the model's own numbers). With fp16 an overflow skips the update and is reported
    as a gradient norm that is not finite. Raises SettingsError when replay pairs are needed but
    missing, and Diverged, before the weights move, when a loss or the gradient is not finite.
    Source: docs/method.md, One step.
    """
    engine = engine or plain_engine(student)
    parameters = list(trainable_parameters(student).values())
    pull = objective.consolidation.weight * engine.loss_scale
    held = torch.zeros((), device=parameters[0].device)
    optimizer.zero_grad(set_to_none=True)
    # The replay graph comes first: it is freed before the task's graph exists.
    replayed = None
    if objective.uses_replay:
        replayed = _replay_backward(student, replay, objective, engine)  # 2, 3, 4
    if objective.is_adaptive:  # while .grad is theirs alone; the sums commute
        held = consolidate_(parameters, anchor.parameters, pull, objective.repeats)  # 5, 6
    elif objective.is_static:
        _watch_fisher_(parameters, anchor, objective.consolidation.static_steps)
    logits_BK = classification_logits(student, task, engine)  # 1
    task_loss = classification_loss(logits_BK, task.labels_B, objective.label_smoothing)
    torch.autograd.backward(engine.scaler.scale(task_loss))  # adds to what .grad holds
    if objective.consolidation.weight > 0.0 and not objective.is_adaptive:
        fisher = _standing_fisher(anchor, objective)
        held = add_consolidation_gradient_(parameters, anchor.parameters, pull, fisher)
    engine.scaler.unscale_(optimizer)
    right_B = logits_BK.detach().argmax(dim=1) == task.labels_B
    report = _report(
        task_loss=task_loss,
        replayed=replayed,
        consolidation_loss=held / engine.loss_scale,
        learning_rate=float(optimizer.param_groups[0]["lr"]),
        gradient_norm=_gradient_norm(parameters),
        task_accuracy=100.0 * right_B.to(task_loss.dtype).mean(),
        may_overflow=engine.loss_scale > 1.0,
    )
    engine.scaler.step(optimizer)  # 7
    engine.scaler.update()
    return report


def _replay_backward(
    student: DualEncoder, replay: ReplayBatch | None, objective: Objective, engine: Engine
) -> ReplayLosses:
    """Leave the gradient of the weighted replay losses in `.grad`; steps 2 to 4."""
    if replay is None:
        raise SettingsError(
            "objective: distillation, alignment or adaptive consolidation is on, but the step got "
            "no replay pairs; pass a replay batch or use objective.for_method"
        )
    losses = replay_losses(student, replay, objective, engine)
    torch.autograd.backward(engine.scaler.scale(losses.distillation + losses.alignment))
    return ReplayLosses(losses.distillation.detach(), losses.alignment.detach(), losses.accuracy)


def _watch_fisher_(parameters: list[torch.nn.Parameter], anchor: Anchor, static_steps: int) -> None:
    """Take the step's Fisher information into the mean that static consolidation holds by.

    One that an fp16 overflow spoils is left out.
    """
    mean = anchor.fisher
    if mean is None or mean.count >= static_steps:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    if bool(sums_of_squares(gradients).sum().isfinite()):
        mean.see_(normalised_fisher(gradients))


def _standing_fisher(anchor: Anchor, objective: Objective) -> tuple[Tensor, ...] | None:
    """The Fisher diagonal that the pull is weighted by; None for the plain one."""
    if objective.consolidation.kind == "l2":
        return None
    if anchor.fisher is None:
        raise SettingsError(
            f"objective: consolidation of kind {objective.consolidation.kind} needs a Fisher "
            "diagonal, and the anchor has none; start the task with TrainingState.start"
        )
    return anchor.fisher.tensors


def _gradient_norm(parameters: list[torch.nn.Parameter]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return sums_of_squares(gradients).sum().sqrt()


def _report(
    *,
    task_loss: Tensor,
    replayed: ReplayLosses | None,
    consolidation_loss: Tensor,
    learning_rate: float,
    gradient_norm: Tensor,
    task_accuracy: Tensor,
    may_overflow: bool,
) -> StepReport:
    """One transfer from the device for all numbers; Diverged when one of them is not finite.

    A gradient that `may_overflow` does not count as diverged: the update is skipped instead.
    """
    zero = torch.zeros_like(task_loss)
    tensors = {
        "task_loss": task_loss,
        "distillation_loss": zero if replayed is None else replayed.distillation,
        "alignment_loss": zero if replayed is None else replayed.alignment,
        "consolidation_loss": consolidation_loss,
        "gradient_norm": gradient_norm,
        "task_accuracy": task_accuracy,
        "replay_accuracy": zero if replayed is None else replayed.accuracy,
    }
    stacked = torch.stack([tensor.detach().to(task_loss.dtype) for tensor in tensors.values()])
    numbers: dict[str, float] = dict(zip(tensors, stacked.tolist(), strict=True))
    overflowed = may_overflow and not math.isfinite(numbers["gradient_norm"])
    excused = {"gradient_norm", "consolidation_loss"} if overflowed else set()
    wrong = [
        f"{name} is {value}"
        for name, value in numbers.items()
        if name not in excused and not math.isfinite(value)
    ]
    if wrong:
        raise Diverged(f"training left finite numbers, {', '.join(wrong)}; no weight was changed")
    return StepReport(
        task_loss=numbers["task_loss"],
        distillation_loss=numbers["distillation_loss"],
        alignment_loss=numbers["alignment_loss"],
        consolidation_loss=0.0 if overflowed else numbers["consolidation_loss"],
        learning_rate=learning_rate,
        gradient_norm=None if overflowed else numbers["gradient_norm"],
        task_accuracy=numbers["task_accuracy"],
        replay_accuracy=None if replayed is None else numbers["replay_accuracy"],
    )
