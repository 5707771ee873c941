"""The weighted whole: which losses train a model, how strongly, and in which released form."""

from collections.abc import Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from gift_core.alignment import Alignment
from gift_core.consolidation import Consolidation
from gift_core.distillation import Distillation
from gift_core.errors import SettingsError
from gift_core.settings import Settings

Method = Literal[
    "gift", "zero-shot", "finetune", "l2", "ewc", "lwf", "wise-ft", "icarl", "zscl", "joint"
]
"""gift: the method; the others are what it is compared with (docs/method.md, baselines)."""

METHODS: tuple[Method, ...] = get_args(Method)


class Objective(Settings):
    """task loss + distillation + alignment + consolidation, each with its weight."""

    distillation: Distillation = Field(
        default=Distillation(),
        description="Imitate the teacher on replay pairs (paper: weight 1, temperature 2)",
    )
    alignment: Alignment = Field(
        default=Alignment(),
        description="Match replay images to their prompts (paper: weight 0.25)",
    )
    consolidation: Consolidation = Field(
        default=Consolidation(),
        description="Hold the weights near those before the task (paper: adaptive, weight 1)",
    )
    label_smoothing: float = Field(
        default=0.2,
        ge=0.0,
        lt=1.0,
        description="Share of the task loss's target spread evenly over all classes of the task, "
        "from 0 to 1 (paper: 0.2)",
    )
    released: Literal["corrected", "as-published"] = Field(
        default="corrected",
        description="corrected: every term counts once; as-published: with adaptive consolidation, "
        "replay terms and consolidation count twice, as in the code before 2025-06-15 (paper: "
        "probably as-published)",
    )

    @model_validator(mode="after")
    def _adaptive_needs_a_replay_loss(self) -> Self:
        """Refuse an adaptive pull without the replay losses that give its Fisher information."""
        if (self.is_adaptive or self.is_static) and not self.has_replay_loss:
            raise ValueError(
                f"objective: {self.consolidation.kind} consolidation has no Fisher information "
                "when the weights of distillation and alignment are both 0; give one of them a "
                "weight, or set consolidation.kind to l2 or consolidation.weight to 0"
            )
        return self

    @property
    def has_replay_loss(self) -> bool:
        """Whether distillation or alignment counts at all."""
        return self.distillation.weight > 0.0 or self.alignment.weight > 0.0

    @property
    def is_adaptive(self) -> bool:
        """Whether consolidation is on and wants the Fisher information of every step."""
        return self.consolidation.kind == "adaptive" and self.consolidation.weight > 0.0

    @property
    def is_static(self) -> bool:
        """Whether consolidation is on and learns its Fisher information from the first steps."""
        return self.consolidation.kind == "static" and self.consolidation.weight > 0.0

    @property
    def is_ewc(self) -> bool:
        """Whether consolidation is on and wants the Fisher information of the earlier tasks."""
        return self.consolidation.kind == "ewc" and self.consolidation.weight > 0.0

    @property
    def uses_replay(self) -> bool:
        """Whether a step needs replay pairs."""
        return self.has_replay_loss or self.is_adaptive or self.is_static

    @property
    def knows_texts(self) -> bool:
        """Whether a step wants the teacher's features of every prompt known before the task."""
        return self.distillation.weight > 0.0 and self.distillation.texts == "known"

    @property
    def repeats(self) -> float:
        """How often replay losses and consolidation count in the gradient applied: 1 or 2.

        Twice in the as-published form, whose extra backward belongs to the Fisher information:
        without adaptive consolidation both forms are the same. Source: docs/method.md, One step.
        """
        return 2.0 if self.released == "as-published" and self.is_adaptive else 1.0

    def for_method(self, method: Method) -> "Objective":
        """Reduce the objective to a method's; `gift` leaves it as it is.

        Weights, temperature and label smoothing are kept where the method has them. Raises
        SettingsError for another name. Source: docs/method.md, baselines.
        """
        if method == "gift":
            return self
        if method not in METHODS:
            raise SettingsError(f"method: there is no {method!r}; choose {_any_of(METHODS)}")
        on_known = {"kind": "contrastive", "texts": "known"}
        distils = method in ("lwf", "icarl", "zscl")
        pull = {"l2": "l2", "zscl": "l2", "ewc": "ewc"}.get(method)
        return self.model_copy(
            update={
                "distillation": self.distillation.model_copy(
                    update=on_known if distils else {"weight": 0.0}
                ),
                "alignment": self.alignment.model_copy(update={"weight": 0.0}),
                "consolidation": self.consolidation.model_copy(
                    update={"kind": pull} if pull else {"weight": 0.0}
                ),
            }
        )


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
