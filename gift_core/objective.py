"""The weighted whole: which losses train a model, how strongly, and in which released form."""

from collections.abc import Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from gift_core.errors import SettingsError
from gift_core.settings import Settings, added

Method = Literal[
    "gift", "zero-shot", "finetune", "l2", "ewc", "lwf", "wise-ft", "icarl", "zscl", "joint"
]
"""gift: the method; the others are what it is compared with (docs/method.md, baselines)."""

METHODS: tuple[Method, ...] = get_args(Method)


class Distillation(Settings):
    """How strongly, and how softly, the student imitates the teacher on replay pairs."""

    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1e6,
        description="Factor of the contrastive distillation in the objective, no unit; "
        "0 switches it off (paper: 1)",
    )
    temperature: float = Field(
        default=2.0,
        gt=0.0,
        le=1e3,
        description="Both sides' logits are divided by it before the softmax, no unit; larger "
        "values look more at the unlikely pairs (paper: 2)",
    )
    kind: Literal["contrastive", "images-only", "texts-only", "feature-mse", "reverse-kl"] = added(
        "contrastive",
        description="contrastive: both towers; images-only, texts-only: the other tower is the "
        "teacher's; feature-mse: squared difference of features; reverse-kl: KL of student to "
        "teacher (paper: contrastive, the others are its ablations)",
    )
    texts: Literal["batch", "known"] = added(
        "batch",
        description="What images are compared with. batch: the prompts of the batch; known: the "
        "teacher's features of every prompt known before the task (paper: batch; ZSCL and LwF: "
        "known)",
    )

    @model_validator(mode="after")
    def _known_texts_have_logits(self) -> Self:
        """Refuse kinds that say nothing about a fixed list of texts."""
        if self.texts == "known" and self.kind not in ("contrastive", "reverse-kl"):
            raise ValueError(
                f"distillation.kind: {self.kind} compares the pairs of a batch; with texts: known "
                "choose contrastive or reverse-kl"
            )
        return self


class Alignment(Settings):
    """How strongly replay images are pulled to the prompts that they were generated from."""

    weight: float = Field(
        default=0.25,
        ge=0.0,
        le=1e6,
        description="Factor of the image-text alignment in the objective, no unit; "
        "0 switches it off (paper: 0.25)",
    )
    label_smoothing: float = Field(
        default=0.2,
        ge=0.0,
        lt=1.0,
        description="Share of each target spread evenly over all pairs of the batch, from 0 to 1 "
        "(paper: not named; its code: 0.2)",
    )


class Consolidation(Settings):
    """Which pull holds the student near the weights it started the task from."""

    kind: Literal["adaptive", "l2", "static", "ewc"] = Field(
        default="adaptive",
        description="adaptive: each weight is held by its Fisher information on the replay pairs "
        "of the step; l2: all weights alike, no replay needed; static: by the mean of that "
        "information over the first steps; ewc: by that of the earlier tasks' images (paper: "
        "adaptive)",
    )
    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1e9,
        description="Factor of the pull in the objective, no unit; 0 switches it off (paper: 1)",
    )
    static_steps: int = added(
        100,
        ge=1,
        le=10_000_000,
        description="Steps that static consolidation averages the Fisher information of, then it "
        "stays (paper: none, its ablation does not say)",
    )


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
