"""The family of data sources: each kind knows where its images and labels are, and reads them.

A new kind is one more class here and one more member of `DataSource` at the end of the file.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from gift_core.errors import DataError
from gift_core.settings import Settings
from tasks.digests import digest_of_files, sha256_of_file
from tasks.images import decode_rgb

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


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


class ParquetData(Settings):
    """A folder with one Parquet file a split, in the form that Hugging Face `datasets` writes.

    Columns `image` (struct of bytes and path) and `label` (integer); class names are taken from
    the file's `huggingface` metadata where it has them.
    """

    kind: Literal["parquet"] = "parquet"
    path: str = Field(min_length=1, description="Folder that holds train.parquet, test.parquet")

    def open_split(self, split: str) -> Split:
        """Open a split; DataError saying which file or column is missing or wrong."""
        path = Path(self.path) / f"{split}.parquet"
        if not os.path.isfile(path):  # not Path.is_file, which raises for a name that is too long
            raise DataError(f"no file {path}; put the {split} split there")
        # What is wrong with a Parquet file shows at many places, in many kinds of exceptions.
        try:
            file = pq.ParquetFile(path, memory_map=True)
            table = file.read(columns=["image", "label"])
            _check_columns(path, table)
            return Split(
                labels_N=table["label"].cast(pa.int64()).to_numpy().astype(np.int64),
                class_names=_class_names_of(path, table.schema),
                images=_ParquetImages(path, table["image"]),
                digest=sha256_of_file(path),
            )
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{path}: not a readable Parquet file ({error})") from None


@dataclass(frozen=True)
class _ParquetImages:
    path: Path
    column: pa.ChunkedArray

    def read(self, index: int) -> tuple[bytes, str]:
        where = f"{self.path}: row {index}"
        try:
            data = self.column[index]["bytes"].as_py()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where} cannot be read ({error}); write the file anew") from None
        if data is None:
            raise DataError(f"{where} has no image bytes; write the images into the file")
        return data, where


def _check_columns(path: Path, table: pa.Table) -> None:
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


def _class_names_of(path: Path, schema: pa.Schema) -> tuple[str, ...] | None:
    """Class names from the metadata that Hugging Face `datasets` writes, if they are there."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        names = json.loads(raw)["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return _checked_names(path, names)


def _checked_names(where: Path, names: object) -> tuple[str, ...]:
    """Class names as prompts may have them; DataError for anything else."""
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not whole or not all(0 < len(name) <= 200 and name.isprintable() for name in names):
        raise DataError(
            f"{where}: its class names are not a list of printable names of 1 to 200 characters; "
            "write them anew"
        )
    return tuple(names)


class ImageFolderData(Settings):
    """A folder of splits, each a folder of classes, each a folder of images.

    Labels follow the sorted names of the class folders, as in torchvision's ImageFolder.
    """

    kind: Literal["image-folder"] = "image-folder"
    path: str = Field(min_length=1, description="Folder that holds train/CLASS/*.png and test/...")

    def open_split(self, split: str) -> Split:
        """Open a split; DataError saying which folder is missing or empty."""
        folder = Path(self.path) / split
        if not os.path.isdir(folder):  # not Path.is_dir, which raises for a name that is too long
            raise DataError(f"no folder {folder}; put the {split} split there, one folder a class")
        try:
            return self._opened(folder)
        except (OSError, UnicodeError) as error:
            raise DataError(f"{folder}: cannot be read ({error}); rename or unlock it") from None

    def _opened(self, folder: Path) -> Split:
        classes = self._class_folders()
        files, labels = [], []
        for label, name in enumerate(classes):
            found = _images_below(folder / name)
            files += found
            labels += [label] * len(found)
        if not files:
            raise DataError(f"{folder}: no images in its class folders")
        return Split(
            labels_N=np.asarray(labels, dtype=np.int64),
            class_names=classes,
            images=_FileImages(files),
            digest=digest_of_files(folder, files),
        )

    def _class_folders(self) -> tuple[str, ...]:
        """The union over the splits, so that a class without test images keeps its label."""
        names = {path.name for path in Path(self.path).glob("*/*") if path.is_dir()}
        return _checked_names(Path(self.path), sorted(names))


@dataclass(frozen=True)
class _FileImages:
    paths: Sequence[Path]

    def read(self, index: int) -> tuple[bytes, str]:
        path = self.paths[index]
        try:
            return path.read_bytes(), str(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from None


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if path.is_file())  # a pipe would be waited for


DataSource = Annotated[ParquetData | ImageFolderData, Field(discriminator="kind")]
