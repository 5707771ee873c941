"""What a task is learnt on beside its own images: replayed pictures, and others' labels."""

from typing import Literal

from pydantic import Field

from gift_core.settings import Settings


class LearningData(Settings):
    """Where replayed pictures come from, and whether the task is learnt alone."""

    replayed: Literal["pairs", "task", "exemplars"] = Field(
        default="pairs",
        description="Pictures of the replay losses. pairs: generated or recorded ones; task: the "
        "task's own training images; exemplars: some of the earlier tasks' (paper: pairs)",
    )
    memory: int = Field(
        default=10_000,
        ge=2,
        le=100_000_000,
        description="Real pictures that are replayed or estimated on at most, shared evenly by "
        "the earlier tasks, then by their classes (paper: none; ZSCL's iCaRL: 10,000)",
    )
    joint: bool = Field(
        default=False,
        description="Learn every task on the images of all tasks at once, an upper bound (paper: "
        "off)",
    )

    @property
    def keeps_old_data(self) -> bool:
        """Whether images of other tasks are at hand, which the setting of the method forbids."""
        return self.joint or self.replayed == "exemplars"
