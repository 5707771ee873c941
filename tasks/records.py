"""What manifests tell of the work itself: small frozen records, nothing of files or keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gift_core.settings import added


class Record(BaseModel):
    """Base of what is read back from bytes: frozen; unknown keys and NaN are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


class Rejects(Record):
    """How many pictures were made and not kept; `rejected` counts them by reason.

    What is empty is not written, so that manifests without rejects are what they were before
    reasons were counted.
    """

    num_rejected: int = Field(ge=0)
    rejected: dict[str, Annotated[int, Field(gt=0)]] = Field(
        default={}, exclude_if=lambda value: not value
    )

    @property
    def rejects_in_words(self) -> str:
        """Say how many and why: "3 pictures replaced (black 2, flat 1)"."""
        why = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.rejected.items()))
        plural = "picture" if self.num_rejected == 1 else "pictures"
        return f"{self.num_rejected:,} {plural} replaced{f' ({why})' if why else ''}"


class Adapted(Record):
    """How many pairs a generator adapted to an earlier task made, by that task, in their order."""

    adapted: dict[str, Annotated[int, Field(gt=0)]] = added({})

    @property
    def adapted_in_words(self) -> str:
        """Say by which adapter: "digits 40, photos 44"; empty where there was none."""
        return ", ".join(f"{task} {count:,}" for task, count in self.adapted.items())


class BlockDrift(Record):
    """How far one block of parameters moved while a task was learnt.

    `distance` is the L2 norm of the change, `relative` the same over the norm before,
    `weighted` the root of sum(F * change^2) with the normalised Fisher diagonal F.
    """

    block: str
    num_parameters: int
    distance: float
    relative: float
    weighted: float


class Score(Record):
    """A model on a split of a data set, mostly as counts, hence exact.

    `num_in_top` images have their class among the five most similar ones (where there are five);
    `mean_per_class` is in percent, `calibration_error` in percent points; `num_correct_seen` are
    recognised among the classes of all tasks seen (for the tasks seen alone). What was not
    measured is not written: rows of releases before these measures have only counts.
    """

    data_set: str
    split: str
    num_correct: int = Field(ge=0)
    num_images: int = Field(gt=0)
    num_in_top: int | None = added(None, ge=0)
    mean_per_class: float | None = added(None, ge=0, le=100)
    calibration_error: float | None = added(None, ge=0, le=100)
    num_correct_seen: int | None = added(None, ge=0)

    @property
    def percent(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.num_correct / self.num_images

    @property
    def top_percent(self) -> float | None:
        """Top-5 accuracy in percent."""
        return self._percent_of(self.num_in_top)

    @property
    def seen_percent(self) -> float | None:
        """Accuracy in percent among the classes of all tasks seen."""
        return self._percent_of(self.num_correct_seen)

    def _percent_of(self, number: int | None) -> float | None:
        return None if number is None else 100.0 * number / self.num_images


class Retrieval(Record):
    """Counts of R@1 on replay pairs: what finds its counterpart, equal prompts being one prompt."""

    num_pictures: int = Field(gt=0)
    num_pictures_right: int = Field(ge=0)
    num_prompts: int = Field(gt=0)
    num_prompts_right: int = Field(ge=0)

    @property
    def picture_percent(self) -> float:
        """Pictures that find their prompt, in percent."""
        return 100.0 * self.num_pictures_right / self.num_pictures

    @property
    def prompt_percent(self) -> float:
        """Prompts that find one of their pictures, in percent."""
        return 100.0 * self.num_prompts_right / self.num_prompts
