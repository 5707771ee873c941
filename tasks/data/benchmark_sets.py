"""The field's benchmarks as a kind of data source: they lie on disk as they are published."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from gift_core.errors import DataError
from tasks.data.benchmarks import BENCHMARKS, Benchmark
from tasks.data.choice import Indices
from tasks.data.listings import Listing
from tasks.data.raw_arrays import RawImages, RawListing
from tasks.data.splits import Expected, FileImages, SourceSettings, Split, checked_names
from tasks.digests import remembered_sha256

DRAW_SEED, TRAIN_SHARE = 42, 0.8
"""Of the released code, where a data set has no published split."""


class BenchmarkData(SourceSettings):
    """A published data set below a folder, in the layout of its archive (docs/data.md).

    Nothing is downloaded: what is missing is named, with the place that it belongs to.
    """

    kind: Literal["benchmark"] = "benchmark"
    path: str = Field(min_length=1, description="Folder that the archives were unpacked in")
    dataset: str = Field(description=f"One of {', '.join(BENCHMARKS)}")

    @field_validator("dataset")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in BENCHMARKS:
            raise ValueError(f"no such benchmark; there are {', '.join(BENCHMARKS)}")
        return name

    @property
    def published_as(self) -> str:
        """Its name in the table of benchmarks, by which profiles know it."""
        return self.dataset

    def expected(self, split: str) -> Expected | None:
        """What the published data set holds; None for a split that it does not have."""
        row = BENCHMARKS[self.dataset]
        number = row.num_images.get(self.name_of(split))
        return None if number is None else Expected(row.num_classes, number)

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying what is missing, where it belongs, or is wrong."""
        row, root, name = BENCHMARKS[self.dataset], Path(self.path), self.name_of(split)
        if name not in row.parts:
            raise DataError(_no_split(row, name))
        place = root / row.place
        if not os.path.isdir(root):  # before torchvision takes ~ for a home and we do not
            raise DataError(_missing(row, place))
        try:
            found = row.read(root, row.parts[name])
        except DataError:
            raise
        # Lists in five formats, read by other people's code, are wrong in many kinds of exceptions.
        except Exception as error:
            raise DataError(_unreadable(row, place, error)) from None
        chosen = _of_seeded_split(row, name, len(found.labels))
        labels_N = np.asarray(found.labels, dtype=np.int64)[chosen]
        names = checked_names(place, found.class_names)
        if not len(labels_N) or not 0 <= labels_N.min() <= labels_N.max() < len(names):
            raise DataError(
                f"{place}: the lists of {row.title} name no pictures, or classes that are not "
                f"there; unpack {row.archive} anew"
            )
        if isinstance(found, RawListing):
            images = RawImages(found.file, found.pixels)
            digest = _digest([found.file], [found.file.name], labels_N)
            return Split(labels_N, names, images, digest)
        return _of_files(row, root, found, chosen, labels_N, names)


def _of_files(
    row: Benchmark,
    root: Path,
    found: Listing,
    chosen: Indices,
    labels_N: Indices,
    names: tuple[str, ...],
) -> Split:
    files = [found.files[index] for index in chosen.tolist()]
    for file in files:
        if not file.is_relative_to(root) or ".." in file.relative_to(root).parts:
            raise DataError(f"{file}: a list leads out of {root}; unpack {row.archive} anew")
        if not os.path.isfile(file):
            raise DataError(f"no picture {file}, which is listed; unpack {row.archive} anew")
    try:
        digest = _digest(files, [file.relative_to(root).as_posix() for file in files], labels_N)
    except OSError as error:
        raise DataError(f"{root / row.place}: cannot be read ({error}); unlock it") from None
    return Split(labels_N, names, FileImages(files), digest)


def _digest(files: Sequence[Path], names: Sequence[str], labels_N: Indices) -> str:
    """SHA-256 over names and contents in order, and the labels."""
    digest = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name}\0{remembered_sha256(file)}\n".encode())
    digest.update(labels_N.astype("<i8").tobytes())
    return digest.hexdigest()


def _of_seeded_split(row: Benchmark, split: str, num_listed: int) -> Indices:
    """Which of the listed pictures a split holds: all, or those that were drawn for it."""
    if row.order_sha256 is None:
        return np.arange(num_listed)
    order = seeded_order(num_listed)
    if num_listed == sum(row.num_images.values()) and order_digest(order) != row.order_sha256:
        raise DataError(
            f"{row.title}: this version of torch draws another order from seed {DRAW_SEED} than "
            "the one that is recorded; use the version in constraints.txt"
        )
    num_train = int(TRAIN_SHARE * num_listed)
    return order[:num_train] if split == "train" else order[num_train:]


@lru_cache(maxsize=8)
def seeded_order(num_images: int) -> Indices:
    """The order that the released code draws: torch's permutation of seed 42, int64 (N,)."""
    import torch  # takes a second: only where a split was drawn

    generator = torch.Generator().manual_seed(DRAW_SEED)
    return torch.randperm(num_images, generator=generator).numpy()


def order_digest(order: Indices) -> str:
    """SHA-256 of an order as little-endian int64."""
    return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()


def _no_split(row: Benchmark, name: str) -> str:
    splits = ", ".join(row.parts)
    hint = "set held_out to keep a share of train for it" if name == "validation" else "take those"
    return f"{row.title} has no {name} split, it has {splits}; {hint}"


def _missing(row: Benchmark, place: Path) -> str:
    return f"no folder {place}; {row.title} belongs there ({row.archive}, unpacked)"


def _unreadable(row: Benchmark, place: Path, error: Exception) -> str:
    if not os.path.isdir(place):
        return _missing(row, place)
    if isinstance(error, ModuleNotFoundError):
        return f"{place}: needs the package {error.name}; pip install 'gift-continual[benchmarks]'"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"no file {error.filename}, of {row.title} ({row.archive}); put it there"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"{place}: not {row.title} as it is published ({what}); unpack {row.archive} anew"
