"""How one task is fine-tuned: every setting of it, with the paper's values as defaults."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gift_core.collapse import CollapseSettings
from gift_core.freezing import Trained
from gift_core.learning_data import LearningData
from gift_core.objective import Objective
from gift_core.settings import Settings, added
from gift_core.teacher import Teacher

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Averaging(Settings):
    """Which average of weights a task leaves behind; by default the last step's own."""

    ensemble_every: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="The model is the mean of the weights before the task and after every so many "
        "steps; empty: the method's own, 100 for zscl and off elsewhere (paper: off; ZSCL: 100)",
    )
    share: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Share of the weights learnt in the model, the rest is `origin`'s; empty: the "
        "method's own, 0.8 for wise-ft and 1 elsewhere (paper: 1; ZSCL's WiSE-FT: 0.8)",
    )
    origin: Literal["previous", "initial"] = Field(
        default="previous",
        description="What the weights learnt are mixed with: those before the task, or the "
        "pretrained model's (paper: neither; ZSCL's WiSE-FT: previous)",
    )

    @property
    def mixes(self) -> bool:
        """Whether the model is a mixture with its origin."""
        return self.share is not None and self.share < 1.0


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
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        default="auto",
        description="Numbers of the towers' arithmetic; auto: bf16 on CUDA, fp32 elsewhere. "
        "Weights, gradients, Fisher information and losses are fp32 in all of them (paper: fp32)",
    )
    collapse: CollapseSettings = Field(
        default=CollapseSettings(),
        description="When a run counts as diverged though its numbers are finite (paper: never)",
    )
    trained: Trained = added(
        Trained(), description="What of the model learns (paper: both towers, all weights)"
    )
    teacher: Teacher = added(
        Teacher(), description="Whom the student imitates (paper: the model before the task)"
    )
    averaging: Averaging = added(
        Averaging(), description="Which average of weights a task leaves (paper: the last step's)"
    )
    data: LearningData = added(
        LearningData(), description="What is learnt on beside the task's images (paper: pairs)"
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

    @model_validator(mode="after")
    def _updates_are_no_weights(self) -> Self:
        self.check_updates()
        return self

    def check_updates(self) -> None:
        """ValueError where low-rank updates meet what reckons in the weights themselves."""
        reckons = {
            "averaging": self.averaging.mixes or self.averaging.ensemble_every is not None,
            "consolidation of kind ewc": self.objective.is_ewc,
        }
        if self.trained.lora and (found := [name for name, on in reckons.items() if on]):
            raise ValueError(
                f"trained.lora: {found[0]} reckons in whole weights, and low-rank updates learn "
                "others; leave one of the two out"
            )
