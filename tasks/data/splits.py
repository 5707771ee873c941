"""What every kind of data source gives: a split, its labels at hand, its images read one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from gift_core.errors import DataError
from gift_core.settings import Settings
from tasks.images import decode_rgb

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})

SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class SourceSettings(Settings):
    """What every kind of data source is told: a folder, and how its splits are called there."""

    path: str = Field(min_length=1, description="Folder that holds the splits")
    splits: Mapping[str, SplitName] = Field(
        default={}, description="Names of splits where they are others: test: held-out"
    )

    def name_of(self, split: str) -> str:
        """How the data set calls a split."""
        return self.splits.get(split, split)


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
