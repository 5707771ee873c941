"""Data sets in Parquet, in the form that Hugging Face `datasets` writes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from gift_core.errors import DataError
from tasks.data.splits import SourceSettings, Split, checked_names
from tasks.digests import sha256_of_file


class ParquetData(SourceSettings):
    """A folder with one Parquet file a split, in the form that Hugging Face `datasets` writes.

    Columns `image` (struct of bytes and path) and `label` (integer); class names are taken from
    the file's `huggingface` metadata where it has them.
    """

    kind: Literal["parquet"] = "parquet"
    path: str = Field(min_length=1, description="Folder that holds train.parquet, test.parquet")

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying which file or column is missing or wrong."""
        path = Path(self.path) / f"{self.name_of(split)}.parquet"
        if not os.path.isfile(path):  # not Path.is_file, which raises for a name that is too long
            raise DataError(f"no file {path}; put the {split} split there")
        # What is wrong with a Parquet file shows at many places, in many kinds of exceptions.
        try:
            file = pq.ParquetFile(path, memory_map=True)
            table = file.read(columns=["image", "label"])
            check_columns(path, table)
            return Split(
                labels_N=table["label"].cast(pa.int64()).to_numpy().astype(np.int64),
                class_names=class_names_of(path, table.schema),
                images=ColumnImages(path, table["image"]),
                digest=sha256_of_file(path),
            )
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{path}: not a readable Parquet file ({error})") from None


@dataclass(frozen=True)
class ColumnImages:
    """Images in a column of structs with their bytes; `path` is where it was read."""

    path: Path
    column: pa.ChunkedArray

    def read(self, index: int) -> tuple[bytes, str]:
        """The image's bytes, and the file with the row; DataError when there are none."""
        where = f"{self.path}: row {index}"
        try:
            data = self.column[index]["bytes"].as_py()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where} cannot be read ({error}); write the file anew") from None
        if data is None:
            raise DataError(f"{where} has no image bytes; write the images into the file")
        return data, where


def check_columns(path: Path, table: pa.Table) -> None:
    """DataError unless the table is a column `image` with bytes and a column `label` of numbers."""
    missing = [name for name in ("image", "label") if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: no column {' and no column '.join(missing)}")
    if len(table.column_names) > 2:
        raise DataError(f"{path}: its columns are {table.column_names}; keep one of each name")
    image, label = table.schema.field("image").type, table.schema.field("label").type
    has_bytes = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not has_bytes or image.field("bytes").type not in (pa.binary(), pa.large_binary()):
        raise DataError(f"{path}: column image is {image}, not a struct with binary bytes")
    if not pa.types.is_integer(label):
        raise DataError(f"{path}: column label is {label}, not an integer")
    if table["label"].null_count:
        raise DataError(f"{path}: {table['label'].null_count} rows have no label")


def class_names_of(path: Path, schema: pa.Schema, label: str = "label") -> tuple[str, ...] | None:
    """Class names from the metadata that Hugging Face `datasets` writes, if they are there."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        names = json.loads(raw)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return checked_names(path, names)
