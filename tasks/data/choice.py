"""Which images of a data set are meant: a slice of its classes, a few of each, a part held out.

Every draw is seeded and looks at labels alone, so that it is the same on every machine.
"""

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gift_core.errors import DataError
from gift_core.settings import Settings

Indices = NDArray[np.int64]

ClassNumber = Annotated[int, Field(ge=0, lt=1_000_000)]


class ClassRange(Settings):
    """Classes `start` to `stop - 1`, in the data set's own order."""

    start: ClassNumber = Field(default=0, description="First class, from 0")
    stop: ClassNumber = Field(description="The class behind the last one")

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.stop <= self.start:
            raise ValueError(f"start {self.start} is not below stop {self.stop}; name some classes")
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The classes one by one."""
        return tuple(range(self.start, self.stop))


def of_classes(
    labels_N: Indices, classes: tuple[int, ...], num_classes: int | None
) -> tuple[Indices, Indices]:
    """The images of such classes, int64 (n,), and their labels as places in `classes`, int64 (n,).

    DataError for a class that the data set does not have.
    """
    beyond = [number for number in classes if num_classes is not None and number >= num_classes]
    if beyond:
        raise DataError(f"classes names class {beyond[0]}, but there are 0 to {num_classes - 1}")
    order = np.argsort(classes)
    in_order = np.asarray(classes, dtype=np.int64)[order]
    found_N = np.searchsorted(in_order, labels_N).clip(max=len(classes) - 1)
    chosen = np.flatnonzero(in_order[found_N] == labels_N)
    return chosen, order[found_N[chosen]]


def few_shot(labels_N: Indices, shots: int, seed: int) -> Indices:
    """`shots` images of each class, drawn without replacement, int64 (n,), in the data's order.

    Each class has a draw of its own, which does not depend on what other classes there are.
    DataError for a class that has fewer.
    """
    drawn = []
    for label in np.unique(labels_N).tolist():
        members = np.flatnonzero(labels_N == label)
        if len(members) < shots:
            raise DataError(f"class {label} has {len(members)} images, fewer than shots {shots}")
        generator = np.random.Generator(np.random.PCG64([seed, label]))
        drawn.append(generator.permutation(members)[:shots])
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def held_out(num_images: int, share: float, seed: int) -> tuple[Indices, Indices]:
    """Cut a training split: what is kept, and what is held out for validation, both int64.

    At least one image is held out, and one is kept where there are two.
    """
    number = min(max(1, round(share * num_images)), max(1, num_images - 1))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(num_images)
    return np.sort(order[number:]), np.sort(order[:number])
