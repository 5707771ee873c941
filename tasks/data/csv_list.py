"""Data sets as a CSV of paths and labels, beside the images that it lists."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from gift_core.errors import DataError
from tasks.data.splits import FileImages, SourceSettings, Split, checked_names
from tasks.digests import sha256_of_file
from tasks.manifests import canonical_json, sha256_hex

MAX_LABEL = 1_000_000


class CsvData(SourceSettings):
    """A folder with one CSV file a split: a column `path`, and a column `label` or `class`.

    Paths are relative to the folder and may not leave it. A `label` is a number, a `class` a name;
    names are numbered in sorted order over all CSV files of the folder.
    """

    kind: Literal["csv"] = "csv"
    path: str = Field(min_length=1, description="Folder that holds train.csv, test.csv, images")

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying which file, row or image is missing or wrong."""
        file = Path(self.path) / f"{self.name_of(split)}.csv"
        if not os.path.isfile(file):
            raise DataError(f"no file {file}; put the {split} split there")
        column, rows = _read(file)
        if not rows:
            raise DataError(f"{file}: no rows below its header; list the images")
        names = self._class_names() if column == "class" else None
        numbers = {name: number for number, name in enumerate(names or ())}
        labels = [
            numbers[value] if names else _label(file, row, value)
            for row, (_, value) in enumerate(rows, start=2)
        ]
        paths = [_inside(file, row, path) for row, (path, _) in enumerate(rows, start=2)]
        try:
            listed = [
                [path, value, sha256_of_file(place)]
                for (path, value), place in zip(rows, paths, strict=True)
            ]
        except OSError as error:
            raise DataError(f"{file}: an image cannot be read ({error}); unlock it") from None
        return Split(
            labels_N=np.asarray(labels, dtype=np.int64),
            class_names=names,
            images=FileImages(paths),
            digest=sha256_hex(canonical_json([column, listed])),
        )

    def _class_names(self) -> tuple[str, ...]:
        """The union over the splits, so that a class without test images keeps its label."""
        names: set[str] = set()
        for file in sorted(Path(self.path).glob("*.csv")):
            column, rows = _read(file)
            if column == "class":
                names |= {value for _, value in rows}
        return checked_names(Path(self.path), sorted(names))


def _read(file: Path) -> tuple[str, list[tuple[str, str]]]:
    """The name of the second column, and every row's path and value; DataError otherwise."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return _parsed(file, csv.reader(stream, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file}: not readable as CSV in UTF-8 ({error}); write it anew") from None


def _parsed(file: Path, lines: Iterator[list[str]]) -> tuple[str, list[tuple[str, str]]]:
    header = [name.strip() for name in next(lines, [])]
    labelled = [name for name in header if name in {"label", "class"}]
    if header.count("path") != 1 or len(labelled) != 1:
        raise DataError(
            f"{file}: its first line is {header}; name a column path, and a column label (numbers) "
            "or class (names)"
        )
    place, value = header.index("path"), header.index(labelled[0])
    rows = []
    for number, line in enumerate(lines, start=2):
        if not line:  # a blank line
            continue
        if len(line) != len(header):
            raise DataError(f"{file}: row {number} has {len(line)} values, not {len(header)}")
        rows.append((line[place], line[value]))
    return labelled[0], rows


def _label(file: Path, row: int, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 7) or int(value) > MAX_LABEL:
        raise DataError(
            f"{file}: row {row}: label {value!r} is no number from 0 to {MAX_LABEL}; "
            "names belong into a column class"
        )
    return int(value)


def _inside(file: Path, row: int, path: str) -> Path:
    """The image of a row; DataError when it lies elsewhere or is no file."""
    folder = os.path.realpath(file.parent)
    try:
        place = os.path.realpath(os.path.join(folder, path))
        is_file = os.path.isfile(place)
    except (OSError, ValueError):  # a name that no file can have
        place, is_file = "", False
    if os.path.isabs(path) or not place.startswith(folder + os.sep):
        raise DataError(
            f"{file}: row {row}: {path!r} leads out of the CSV's folder; give a path below it"
        )
    if not is_file:
        raise DataError(f"{file}: row {row}: no file {path!r} below {file.parent}")
    return Path(place)
