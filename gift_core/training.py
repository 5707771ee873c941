"""Learning one task: the loop as a generator, so that the caller logs, saves and stops.

Its state between two steps is a few tensors: saved and restored, a run goes on as if unbroken.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from gift_core.averaging import RunningMean
from gift_core.collapse import CollapseWatch
from gift_core.engine import Engine, plain_engine
from gift_core.errors import DataError, Diverged
from gift_core.features import DualEncoder, freeze_logit_scale_, trainable_parameters
from gift_core.finetune_settings import FinetuneSettings
from gift_core.freezing import freeze_towers_
from gift_core.restoring import copy_saved_
from gift_core.schedule import learning_rate_at
from gift_core.step import Anchor, ReplayBatch, StepReport, TaskBatch, gift_step


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


@dataclass(eq=False)
class TrainingState:
    """A task that is being learnt: the student, what it is held to, and how far it is.

    Between two steps `tensors` is all of it that changes; `restore_` of those on a state started
    from the same model goes on as if nothing had happened, bit for bit on a CPU.
    """

    student: DualEncoder
    settings: FinetuneSettings
    engine: Engine
    optimizer: torch.optim.AdamW
    anchor: Anchor
    watch: CollapseWatch
    step: int = 0
    replay_accuracies: list[float] = field(default_factory=list)
    ensemble: RunningMean | None = None

    @classmethod
    def start(
        cls,
        student: DualEncoder,
        settings: FinetuneSettings,
        engine: Engine | None = None,
        fisher: Sequence[Tensor] | None = None,
    ) -> Self:
        """Begin with the student as it is: its weights are the anchor, its logit_scale is frozen.

        So are the towers that `settings.trained` leaves out; low-rank updates must be in the
        student by then. The student is left in train mode. `engine` is how steps are computed; the
        default is one process in the model's own numbers. `fisher` is what consolidation of kind
        ewc holds by, in the order of `trainable_parameters`.
        """
        freeze_logit_scale_(student)
        freeze_towers_(student, settings.trained)
        student.train()
        held = settings.objective.consolidation.weight > 0.0 or settings.averaging.mixes
        anchor = Anchor.of(student) if held else Anchor(())
        if settings.objective.is_static:
            anchor = replace(anchor, fisher=RunningMean.empty(anchor.parameters))
        elif fisher is not None:
            anchor = replace(anchor, fisher=RunningMean(tuple(fisher), 1))
        averages = settings.averaging.ensemble_every is not None
        start = list(trainable_parameters(student).values())
        return cls(
            student=student,
            settings=settings,
            engine=engine or plain_engine(student),
            optimizer=make_optimizer(student, settings),
            anchor=anchor,
            watch=CollapseWatch(settings.collapse),
            ensemble=RunningMean.starting_with(start) if averages else None,
        )

    @property
    def _running(self) -> dict[str, RunningMean]:
        """The means that grow from step to step, by the name that a checkpoint has them under."""
        means = {"ensemble": self.ensemble}
        if self.settings.objective.is_static:
            means["static_fisher"] = self.anchor.fisher
        return {name: mean for name, mean in means.items() if mean is not None}

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore_` needs, by name: views, so copy or write them before the next step."""
        tensors = {
            "step": torch.tensor(self.step),
            "replay_accuracies": torch.tensor(self.replay_accuracies, dtype=torch.float64),
            "random.cpu": torch.get_rng_state(),
        }
        parameters = trainable_parameters(self.student)
        device = next(iter(parameters.values())).device
        if device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        if self.engine.scaler.is_enabled():
            scaler = self.engine.scaler.state_dict()
            tensors["scaler.scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
            tensors["scaler.growth"] = torch.tensor(scaler["_growth_tracker"])
        for name, parameter in parameters.items():
            tensors[f"weight.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        for name, mean in self._running.items():
            tensors |= mean.saved(name, list(parameters))
        return tensors

    def restore_(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave; DataError when they are those of another run."""
        parameters = trainable_parameters(self.student)
        device = next(iter(parameters.values())).device
        try:
            for name, parameter in parameters.items():
                copy_saved_(parameter, tensors[f"weight.{name}"], name)
                self.optimizer.state[parameter] = {
                    key: tensors[f"{key}.{name}"].clone().to(device if key != "step" else "cpu")
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in tensors
                }
            if self.engine.scaler.is_enabled():
                scaler = self.engine.scaler.state_dict() | {
                    "scale": tensors["scaler.scale"].item(),
                    "_growth_tracker": int(tensors["scaler.growth"].item()),
                }
                self.engine.scaler.load_state_dict(scaler)
            for name, mean in self._running.items():
                mean.restore_(name, list(parameters), tensors)
            torch.set_rng_state(tensors["random.cpu"].cpu())
            if device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"].cpu(), device)
            self.step = int(tensors["step"].item())
            self.replay_accuracies = tensors["replay_accuracies"].tolist()
            for accuracy in self.replay_accuracies:
                self.watch.see(accuracy)
        except KeyError as error:
            raise DataError(
                f"checkpoint: it has no {error.args[0]}, so it belongs to another run; delete it"
            ) from None
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"checkpoint: it does not fit ({error}), so it belongs to another run; delete it"
            ) from None

    def see(self, report: StepReport) -> None:
        """Remember the replay accuracy of a step; Diverged when it has collapsed."""
        if report.replay_accuracy is None:
            return
        self.replay_accuracies.append(report.replay_accuracy)
        try:
            self.watch.see(report.replay_accuracy)
        except Diverged as error:
            raise Diverged(f"step {self.step} of {self.settings.num_steps}: {error}") from error


def train(
    state: TrainingState, batches: Iterable[tuple[TaskBatch, ReplayBatch | None]]
) -> Iterator[StepReport]:
    """Go on learning from where `state` is, to exactly `num_steps` updates; a report after each.

    `batches` are those from step `state.step` on; no batch is taken beyond the last step's. When a
    report arrives `state` is that after its step. Raises DataError when batches run out early,
    Diverged with the number of the step (from 1) when numbers stop being finite or the replay
    accuracy collapses. Source: docs/method.md step 7.
    """
    settings, source = state.settings, iter(batches)
    while state.step < settings.num_steps:
        pair = next(source, None)
        if pair is None:
            raise DataError(
                f"batches: they ended after {state.step} of {settings.num_steps} steps; give at "
                "least num_steps of them"
            )
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(
                state.step, settings.num_steps, settings.warmup_steps, settings.learning_rate
            )
        try:
            report = gift_step(
                state.student,
                state.optimizer,
                *pair,
                state.anchor,
                settings.objective,
                state.engine,
            )
        except Diverged as error:
            raise Diverged(
                f"step {state.step + 1} of {settings.num_steps}: {error}; use a learning_rate "
                f"smaller than {settings.learning_rate:g}"
            ) from error
        state.step += 1
        state.see(report)
        _average_(state)
        yield report


def _average_(state: TrainingState) -> None:
    """Take the weights into the ensemble when it is their turn."""
    every = state.settings.averaging.ensemble_every
    if state.ensemble is not None and every is not None and state.step % every == 0:
        state.ensemble.see_(list(trainable_parameters(state.student).values()))
