"""One step of GIFT, numbered as in docs/method.md.

Shapes: B images or pairs of a batch, K classes of the task, P distinct prompts of the batch, D
features, C x H x W an image's channels, height and width, L tokens of a prompt.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gift_core.consolidation import add_consolidation_gradient_
from gift_core.errors import DataError, Diverged, SettingsError
from gift_core.features import (
    DualEncoder,
    encode_images,
    encode_texts,
    similarity,
    trainable_parameters,
)
from gift_core.fisher import normalised_fisher
from gift_core.objective import Objective
from gift_core.replay import ReplayBatch as ReplayBatch
from gift_core.replay import ReplayLosses, replay_losses


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """Labelled images of the task that is being learnt, and the prompts of all its classes.

    `images_BCHW` is floating, preprocessed for the model; `labels_B` is int64, a row of
    `class_tokens_KL`, int64. Raises DataError when there are not as many labels as images.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    class_tokens_KL: Tensor

    def __post_init__(self) -> None:
        if len(self.images_BCHW) != len(self.labels_B):
            raise DataError(
                f"task batch: {len(self.images_BCHW)} images but {len(self.labels_B)} labels; "
                "give one label an image"
            )


@dataclass(frozen=True, eq=False)
class Anchor:
    """The weights before the task, theta_{t-1}, in the order of `trainable_parameters`."""

    parameters: tuple[Tensor, ...]

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
    gradient applied. Accuracies are in percent: the task's over its classes, the replay pairs'
    over the batch's prompts; `replay_accuracy` is None in a step without replay.
    """

    task_loss: float
    distillation_loss: float
    alignment_loss: float
    consolidation_loss: float
    learning_rate: float
    gradient_norm: float
    task_accuracy: float
    replay_accuracy: float | None


def classification_logits(student: DualEncoder, task: TaskBatch) -> Tensor:
    """Compute logits (B, K) of images over the task's classes; each prompt is encoded once.

    Source: docs/method.md step 1.
    """
    return similarity(
        encode_images(student, task.images_BCHW),
        encode_texts(student, task.class_tokens_KL),
        student.logit_scale.detach().exp(),
    )


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
) -> StepReport:
    """Train the student by one step and say what happened.

    `replay` may be None, and is not looked at, when `objective.uses_replay` is false; `anchor` is
    not looked at when the consolidation's weight is 0. Raises SettingsError when replay pairs are
    needed but missing, and Diverged, before the weights move, when a loss or the gradient is not
    finite. Source: docs/method.md, One step.
    """
    parameters = list(trainable_parameters(student).values())
    optimizer.zero_grad(set_to_none=True)
    # The replay graph comes first: it is freed before the task's graph exists.
    replayed = _replay_backward_(student, replay, objective) if objective.uses_replay else None
    fisher = _fisher_of(parameters) if objective.is_adaptive else None  # 5
    if objective.repeats != 1.0:
        _multiply_gradients_(parameters, objective.repeats)
    logits_BK = classification_logits(student, task)  # 1
    task_loss = classification_loss(logits_BK, task.labels_B, objective.label_smoothing)
    torch.autograd.backward(task_loss)  # adds to the replay gradient
    consolidation_loss = torch.zeros_like(task_loss)
    if objective.consolidation.weight > 0.0:
        weight = objective.repeats * objective.consolidation.weight
        penalty = add_consolidation_gradient_(parameters, anchor.parameters, fisher, weight)  # 6
        consolidation_loss = penalty / objective.repeats
    right_B = logits_BK.detach().argmax(dim=1) == task.labels_B
    report = _report(
        task_loss=task_loss,
        replayed=replayed,
        consolidation_loss=consolidation_loss,
        learning_rate=float(optimizer.param_groups[0]["lr"]),
        gradient_norm=torch.nn.utils.get_total_norm(_gradients(parameters)),
        task_accuracy=100.0 * right_B.to(task_loss.dtype).mean(),
    )
    optimizer.step()  # 7
    return report


def _replay_backward_(
    student: DualEncoder, replay: ReplayBatch | None, objective: Objective
) -> ReplayLosses:
    """Leave the gradient of the weighted replay losses in `.grad`; steps 2 to 4."""
    if replay is None:
        raise SettingsError(
            "objective: distillation, alignment or adaptive consolidation is on, but the step got "
            "no replay pairs; pass a replay batch or use objective.for_method"
        )
    losses = replay_losses(student, replay, objective)
    torch.autograd.backward(losses.distillation + losses.alignment)
    return ReplayLosses(losses.distillation.detach(), losses.alignment.detach(), losses.accuracy)


def _gradients(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _multiply_gradients_(parameters: list[torch.nn.Parameter], factor: float) -> None:
    """Scale what the replay losses left in `.grad`: as-published counts them twice."""
    torch._foreach_mul_(_gradients(parameters), factor)


def _fisher_of(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Zeros where the replay losses do not reach a parameter."""
    return normalised_fisher(
        [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    )


def _report(
    *,
    task_loss: Tensor,
    replayed: ReplayLosses | None,
    consolidation_loss: Tensor,
    learning_rate: float,
    gradient_norm: Tensor,
    task_accuracy: Tensor,
) -> StepReport:
    """One transfer from the device for all numbers; Diverged when one of them is not finite."""
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
    wrong = [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
    if wrong:
        raise Diverged(f"training left finite numbers, {', '.join(wrong)}; no weight was changed")
    replay_accuracy = numbers.pop("replay_accuracy")
    return StepReport(
        **numbers,
        learning_rate=learning_rate,
        replay_accuracy=None if replayed is None else replay_accuracy,
    )
