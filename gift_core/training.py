"""Learning one task: the loop as a generator, so that the caller logs, saves and stops."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from gift_core.errors import DataError, Diverged
from gift_core.features import DualEncoder, freeze_logit_scale_, trainable_parameters
from gift_core.objective import Objective
from gift_core.schedule import learning_rate_at
from gift_core.settings import Settings
from gift_core.step import Anchor, ReplayBatch, StepReport, TaskBatch, gift_step

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class FinetuneSettings(Settings):
    """How one task is learnt."""

    objective: Objective = Field(
        default=Objective(),
        description="The losses and their weights (paper: the defaults)",
    )
    num_steps: int = Field(
        default=1000,
        ge=1,
        le=10_000_000,
        description="Updates of the weights, steps (paper: 1000)",
    )
    batch_size: int = Field(
        default=64,
        ge=1,
        le=65_536,
        description="Task images a step, and as many replay pairs (paper: 64)",
    )
    learning_rate: float = Field(
        default=1e-5,
        gt=0.0,
        le=1.0,
        description="Peak learning rate of AdamW, change of a weight a step (paper: 1e-5, but "
        "5e-5 for Aircraft and MNIST)",
    )
    warmup_steps: int = Field(
        default=100,
        ge=0,
        le=10_000_000,
        description="Steps over which the learning rate grows linearly, at most num_steps "
        "(paper: 100)",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="Decoupled weight decay of AdamW, share of a weight a step and unit of "
        "learning rate (paper: 0)",
    )
    betas: tuple[Beta, Beta] = Field(
        default=(0.9, 0.999),
        description="AdamW's memory of the gradient and of its square, shares kept a step, each "
        "from 0 to below 1 (paper: 0.9 and 0.999)",
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        """Refuse a warm-up that would never reach the learning rate asked for."""
        if self.warmup_steps > self.num_steps:
            raise ValueError(
                f"warmup_steps: {self.warmup_steps} is more than num_steps, {self.num_steps}; "
                "take a tenth of num_steps"
            )
        return self


def make_optimizer(student: DualEncoder, settings: FinetuneSettings) -> torch.optim.AdamW:
    """Make AdamW over the trainable parameters; one fused kernel where the device has it.

    Source: docs/method.md step 7.
    """
    parameters = list(trainable_parameters(student).values())
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=fused,
    )


def train(
    student: DualEncoder,
    batches: Iterable[tuple[TaskBatch, ReplayBatch | None]],
    settings: FinetuneSettings,
) -> Iterator[StepReport]:
    """Learn one task: exactly `num_steps` updates, one report after each.

    The student changes in place, from the anchor that it is when the first report is asked for;
    its logit_scale is frozen and it is left in train mode. No batch is taken beyond the last
    step's. Raises DataError when batches run out early, Diverged with the number of the step
    (from 1) when numbers stop being finite. Source: docs/method.md step 7.
    """
    objective = settings.objective
    freeze_logit_scale_(student)
    student.train()
    anchor = Anchor.of(student) if objective.consolidation.weight > 0.0 else Anchor(())
    optimizer = make_optimizer(student, settings)
    source = iter(batches)
    for step in range(settings.num_steps):
        pair = next(source, None)
        if pair is None:
            raise DataError(
                f"batches: they ended after {step} of {settings.num_steps} steps; give at least "
                "num_steps of them"
            )
        rate = learning_rate_at(
            step, settings.num_steps, settings.warmup_steps, settings.learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        task, replay = pair
        try:
            report = gift_step(student, optimizer, task, replay, anchor, objective)
        except Diverged as error:
            raise Diverged(
                f"step {step + 1} of {settings.num_steps}: {error}; use a learning_rate smaller "
                f"than {settings.learning_rate:g}"
            ) from error
        yield report
