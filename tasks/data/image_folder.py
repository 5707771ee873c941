"""Data sets as folders of splits, of classes, of images: torchvision's ImageFolder."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from gift_core.errors import DataError
from tasks.data.splits import IMAGE_SUFFIXES, FileImages, SourceSettings, Split, checked_names
from tasks.digests import digest_of_files


class ImageFolderData(SourceSettings):
    """A folder of splits, each a folder of classes, each a folder of images.

    Labels follow the sorted names of the class folders, as in torchvision's ImageFolder.
    """

    kind: Literal["image-folder"] = "image-folder"
    path: str = Field(min_length=1, description="Folder that holds train/CLASS/*.png and test/...")

    def read_split(self, split: str) -> Split:
        """Read a whole split; DataError saying which folder is missing or empty."""
        folder = Path(self.path) / self.name_of(split)
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
            images=FileImages(files),
            digest=digest_of_files(folder, files),
        )

    def _class_folders(self) -> tuple[str, ...]:
        """The union over the splits, so that a class without test images keeps its label."""
        names = {path.name for path in Path(self.path).glob("*/*") if path.is_dir()}
        return checked_names(Path(self.path), sorted(names))


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if path.is_file())  # a pipe would be waited for
