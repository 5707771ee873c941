"""What every kind of data source gives: a split, its labels at hand, its images read one by one."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator

from gift_core.errors import DataError
from gift_core.settings import Settings, added
from tasks.data.choice import ClassNumber, ClassRange, Indices, few_shot, held_out, of_classes
from tasks.images import decode_rgb
from tasks.manifests import canonical_json, sha256_hex

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})

SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class ImageBytes(Protocol):
    """The encoded images of a split, read when asked for."""

    def read(self, index: int) -> tuple[bytes, str]:
        """The image's file content and a name for it that a person can find it by."""


@dataclass(frozen=True)
class Split:
    """One split of a data set: labels at hand, images read one by one.

    `labels_N` is int64 (N,), each a row of the class list; `class_names` is None where the data
    set does not name its classes.
    """

    labels_N: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    images: ImageBytes
    digest: str

    def __len__(self) -> int:
        return len(self.labels_N)

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB; DataError naming it when it cannot be read."""
        return decode_rgb(*self.images.read(index))


T = TypeVar("T")


@dataclass(frozen=True)
class Expected:
    """How many classes and images a whole split of a published data set holds."""

    num_classes: int
    num_images: int


class SourceSettings(Settings):
    """What every kind of data source is told: a folder, its splits' names, and what is chosen."""

    path: str = Field(min_length=1, description="Folder that holds the splits")
    splits: Mapping[str, SplitName] = Field(
        default={}, description="Names of splits where they are others: test: held-out"
    )
    classes: ClassRange | tuple[ClassNumber, ...] | None = added(
        None,
        description="Classes to take, in this order, as numbers of the data set's own: a list, or "
        "{start, stop}; empty: all. Labels are counted anew from 0",
    )
    shots: int | None = added(
        None, ge=1, description="Images of each class of the training split; empty: all"
    )
    held_out: float | None = added(
        None,
        gt=0,
        lt=1,
        description="Share of the training split that is drawn to be the validation split and is "
        "not learnt; empty: the data set's own validation split",
    )
    draw_seed: int = added(
        42, ge=0, lt=2**32, description="Seed of the draws of shots and held_out"
    )

    @field_validator("classes")
    @classmethod
    def _classes_are_there_once(
        cls, classes: ClassRange | tuple[int, ...] | None
    ) -> ClassRange | tuple[int, ...] | None:
        if isinstance(classes, tuple) and not 0 < len(set(classes)) == len(classes):
            raise ValueError("name at least one class, and none twice")
        return classes

    def open_split(self, split: str) -> Split:
        """Open what is chosen of a split; DataError saying what is missing or wrong."""
        whole = self._with_held_out(split)
        shots = self.shots if split == "train" else None
        if self.class_numbers is None and shots is None:
            return whole
        indices, labels_N = np.arange(len(whole)), whole.labels_N
        names = whole.class_names
        try:
            if self.class_numbers is not None:
                num_classes = None if names is None else len(names)
                indices, labels_N = of_classes(labels_N, self.class_numbers, num_classes)
                names = None if names is None else self.chosen(names)
            if shots is not None:
                # By the data set's own labels: the same images whatever classes are beside them.
                drawn = few_shot(whole.labels_N[indices], shots, self.draw_seed)
                indices, labels_N = indices[drawn], labels_N[drawn]
        except DataError as error:
            raise DataError(f"{self.path}: the {split} split: {error}") from None
        decided = [self.class_numbers, shots, self.draw_seed if shots else None]
        return _part(whole, indices, decided, labels_N, names)

    @abstractmethod
    def read_split(self, split: str) -> Split:
        """Read a whole split as the data set has it; every kind says how."""

    @property
    def published_as(self) -> str | None:
        """The name of the published data set that this is, where the kind knows it."""
        return None

    def expected(self, split: str) -> Expected | None:
        """What a whole split must hold, where the kind knows it."""
        return None

    def name_of(self, split: str) -> str:
        """How the data set calls a split."""
        return self.splits.get(split, split)

    @property
    def class_numbers(self) -> tuple[int, ...] | None:
        """The chosen classes one by one; None for all."""
        return self.classes.numbers if isinstance(self.classes, ClassRange) else self.classes

    def chosen(self, items: Sequence[T]) -> tuple[T, ...]:
        """What belongs to the chosen classes, of one item for each class of the data set.

        DataError when there is none for a chosen class.
        """
        numbers = self.class_numbers
        if numbers is not None and max(numbers) >= len(items):
            raise DataError(f"classes names class {max(numbers)}, but there are {len(items)} names")
        return tuple(items if numbers is None else (items[number] for number in numbers))

    def _with_held_out(self, split: str) -> Split:
        """A split before classes and shots are chosen: the data set's own, or as it is cut."""
        if self.held_out is None or split not in {"train", "validation"}:
            return self.read_split(split)
        whole = self.read_split("train")
        kept, held = held_out(len(whole), self.held_out, self.draw_seed)
        indices = kept if split == "train" else held
        decided = [split, self.held_out, self.draw_seed]
        return _part(whole, indices, decided, whole.labels_N[indices], whole.class_names)


def _part(
    whole: Split,
    indices: Indices,
    decided: list[object],
    labels_N: Indices,
    class_names: tuple[str, ...] | None,
) -> Split:
    return Split(
        labels_N=labels_N,
        class_names=class_names,
        images=_PartOfImages(whole.images, indices),
        digest=sha256_hex(canonical_json([whole.digest, *decided])),
    )


@dataclass(frozen=True)
class _PartOfImages:
    whole: ImageBytes
    indices: Indices

    def read(self, index: int) -> tuple[bytes, str]:
        return self.whole.read(int(self.indices[index]))


def checked_names(where: Path, names: object) -> tuple[str, ...]:
    """Class names as prompts may have them; DataError for anything else."""
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not whole or not all(0 < len(name) <= 200 and name.isprintable() for name in names):
        raise DataError(
            f"{where}: its class names are not a list of printable names of 1 to 200 characters; "
            "write them anew"
        )
    return tuple(names)


@dataclass(frozen=True)
class FileImages:
    """Images that are files of their own."""

    paths: Sequence[Path]

    def read(self, index: int) -> tuple[bytes, str]:
        """The file's content and its path; DataError when it cannot be read."""
        path = self.paths[index]
        try:
            return path.read_bytes(), str(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
