"""Whom the student imitates: the model before the task, the pretrained one, or a mix of both."""

from typing import Literal

from pydantic import Field

from gift_core.settings import Settings


class Teacher(Settings):
    """The frozen teacher of a task."""

    model: Literal["previous", "initial", "mix"] = Field(
        default="previous",
        description="previous: the model before the task; initial: the pretrained model; mix: "
        "their weights mixed (paper: previous)",
    )
    initial_share: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Share of the pretrained model's weights in a mix (paper: no mix; the released "
        "code: any)",
    )

    @property
    def share(self) -> float:
        """How much of the teacher is the pretrained model, from 0 to 1."""
        return {"previous": 0.0, "initial": 1.0, "mix": self.initial_share}[self.model]
