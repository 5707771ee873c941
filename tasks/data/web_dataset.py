"""Data sets in the WebDataset form: tar shards, read where they lie and never unpacked.

Members that share a name up to the first dot of its last part are one sample: an image, and a label
as text (`cls`) or as the key `label` or `cls` of a JSON object (`json`).
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import Field

from gift_core.errors import DataError
from tasks.data.splits import IMAGE_SUFFIXES, SourceSettings, Split, checked_names
from tasks.digests import digest_of_files

CLASS_NAMES = "classnames.txt"
MAX_LABEL_BYTES = 1_000_000
MAX_NAMES_BYTES = 10_000_000
_BLOCK = 512


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a member lie in its shard."""

    shard: Path
    member: str
    offset: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class _ShardImages:
    places: tuple[_Place, ...]

    def read(self, index: int) -> tuple[bytes, str]:
        place = self.places[index]
        where = f"{place.shard}: {place.member}"
        try:
            data = place.read()
        except OSError as error:
            raise DataError(f"{where} cannot be read ({error})") from None
        if len(data) != place.size:
            raise DataError(f"{where} was cut off since; put the whole shard there")
        return data, where


class WebDatasetData(SourceSettings):
    """A folder of tar shards: SPLIT.tar, SPLIT-*.tar or SPLIT/*.tar, not compressed.

    Class names are the lines of classnames.txt, where there is such a file.
    """

    kind: Literal["web-dataset"] = "web-dataset"
    path: str = Field(min_length=1, description="Folder that holds train-*.tar and test-*.tar")

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying which shard or member is missing or wrong."""
        root, name = Path(self.path), self.name_of(split)
        try:
            shards = _shards(root, name)
            if not shards:
                raise DataError(f"no {name}.tar, {name}-*.tar or {name}/*.tar in {root}")
            samples = [sample for shard in shards for sample in _samples(shard)]
            if not samples:
                raise DataError(f"{root}: the shards of {name} hold no images with a label")
            return Split(
                labels_N=np.asarray([label for _, label in samples], dtype=np.int64),
                class_names=_class_names(root / CLASS_NAMES),
                images=_ShardImages(tuple(place for place, _ in samples)),
                digest=digest_of_files(root, shards),
            )
        except (OSError, UnicodeError) as error:
            raise DataError(f"{root}: cannot be read ({error}); rename or unlock it") from None


def _shards(root: Path, split: str) -> list[Path]:
    patterns = (f"{split}.tar", f"{split}-*.tar", f"{split}/*.tar")
    return sorted(
        path for pattern in patterns for path in root.glob(pattern) if os.path.isfile(path)
    )


def _samples(shard: Path) -> Iterator[tuple[_Place, int]]:
    """Each image with its label, in the shard's order."""
    images: dict[str, _Place] = {}
    labels: dict[str, _Place] = {}
    for place in _members(shard):
        key, suffix = _key_and_suffix(place.member)
        found = images if f".{suffix}" in IMAGE_SUFFIXES else labels
        if found is labels and suffix not in {"cls", "json"}:
            continue
        if found is labels and suffix == "json" and key in labels:
            continue  # its cls has been seen
        if key in images and found is images:
            raise DataError(f"{shard}: sample {key} has two images; give each one a name")
        found[key] = place
    for key, place in images.items():
        if key not in labels:
            raise DataError(f"{shard}: {place.member} has no label; put {key}.cls beside it")
        yield place, _label(labels[key])


def _key_and_suffix(member: str) -> tuple[str, str]:
    folder, _, name = member.rpartition("/")
    stem, _, suffix = name.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _members(shard: Path) -> Iterator[_Place]:
    """The plain files of a shard; DataError for anything that could lead elsewhere."""
    total = shard.stat().st_size
    # Whatever is wrong with a tar header shows in many kinds of exceptions.
    try:
        with tarfile.open(shard, mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                _check_member(shard, member)
                if member.offset_data + member.size > total:
                    raise DataError(f"{shard}: torn in {member.name}; put the whole shard there")
                yield _Place(shard, member.name, member.offset_data, member.size)
            end = archive.offset
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{shard}: not a readable tar file ({error}); write it anew") from None
    # tarfile takes a broken header behind the first for the end.
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{shard}: torn at byte {end}; put the whole shard there")


def _check_member(shard: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        raise DataError(f"{shard}: {member.name} is no plain file; leave links out of shards")
    if name.is_absolute() or ".." in name.parts or not member.name.isprintable():
        raise DataError(f"{shard}: {member.name} is no name of a sample; leave paths out of it")


def _label(place: _Place) -> int:
    where = f"{place.shard}: {place.member}"
    if place.size > MAX_LABEL_BYTES:
        raise DataError(f"{where}: {place.size} bytes are no label")
    data = place.read()
    try:
        value = json.loads(data) if place.member.lower().endswith(".json") else int(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a label ({error}); write a number") from None
    if isinstance(value, dict):
        value = value.get("label", value.get("cls"))
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise DataError(f"{where}: label {value!r} is no number from 0; write one")
    return value


def _class_names(file: Path) -> tuple[str, ...] | None:
    if not os.path.isfile(file):
        return None
    if file.stat().st_size > MAX_NAMES_BYTES:
        raise DataError(f"{file}: more than {MAX_NAMES_BYTES:,} bytes; it is no list of names")
    lines = file.read_text(encoding="utf-8").splitlines()
    return checked_names(file, [line.strip() for line in lines if line.strip()])
