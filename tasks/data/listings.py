"""How benchmarks name their pictures on disk: each reader gives files, labels and class names.

The layouts are those that torchvision expects below its root, which are those of the published
archives. Its classes read the lists where they can be told to leave pictures alone; nothing is
ever downloaded. A reader raises whatever its files make it raise: the caller says it in a sentence.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gift_core.errors import DataError

JPEGS = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Listing:
    """The pictures of a split as files, a label for each, and the names of the classes."""

    files: list[Path]
    labels: list[int]
    class_names: list[str]


Reader = Callable[[Path, str], Listing]
"""From the folder that holds the data set, and what the data set calls a split, to its listing."""


def by_torchvision(name: str, takes_split: bool = True) -> Reader:
    """A reader that is one of torchvision's data sets, asked for paths in place of pictures."""

    def read(root: Path, part: str) -> Listing:
        from torchvision import datasets

        arguments: dict[str, Any] = {"split": part} if takes_split else {}
        found = getattr(datasets, name)(str(root), download=False, loader=Path, **arguments)
        # The order of a folder is the file system's, and seeded splits follow the order.
        pairs = [found[index] for index in range(len(found))]
        pairs = pairs if takes_split else sorted(pairs)
        return Listing(
            [path for path, _ in pairs], [int(label) for _, label in pairs], list(found.classes)
        )

    return read


def caltech101(root: Path, _part: str) -> Listing:
    """Folders of categories; the background is none."""
    folder = root / "caltech101" / "101_ObjectCategories"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return _folders(folder, [name for name in names if name != "BACKGROUND_Google"])


def flowers102(root: Path, part: str) -> Listing:
    """Two MATLAB files: the numbers of a split's pictures, and the label of every picture."""
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102

    folder = root / "flowers-102"
    column = {"train": "trnid", "val": "valid", "test": "tstid"}[part]
    numbers = loadmat(str(folder / "setid.mat"))[column].ravel().tolist()
    labels = loadmat(str(folder / "imagelabels.mat"))["labels"].ravel().tolist()
    return Listing(
        [folder / "jpg" / f"image_{number:05d}.jpg" for number in numbers],
        [int(labels[number - 1]) - 1 for number in numbers],
        list(Flowers102.classes),
    )


def oxford_pet(root: Path, part: str) -> Listing:
    """One line a picture: its name, which begins with the breed's, and the breed's number."""
    folder = root / "oxford-iiit-pet"
    files, labels, names = [], [], {}
    for line in (folder / "annotations" / f"{part}.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, number, _species, _breed = line.split()
        labels.append(int(number) - 1)
        names[labels[-1]] = name.rsplit("_", 1)[0].replace("_", " ").title()
        files.append(folder / "images" / f"{name}.jpg")
    return Listing(files, labels, [names[label] for label in range(len(names))])


def imagenet(folder: str, part_folders: bool = False, classes: str = "imagenet") -> Reader:
    """Folders by WordNet number, of ImageNet or of a part of its classes that timm lists."""

    def read(root: Path, part: str) -> Listing:
        base = root / folder / part if part_folders else root / folder
        wnids = synsets(classes)
        listing = _folders(base, wnids)
        return Listing(listing.files, listing.labels, _names_of(wnids))

    return read


def imagenet_v2(root: Path, _part: str) -> Listing:
    """Folders by the class's number."""
    folder = root / "imagenetv2-matched-frequency-format-val"
    listing = _folders(folder, [str(number) for number in range(1000)])
    return Listing(listing.files, listing.labels, _names_of(synsets("imagenet")))


def tiny_imagenet(root: Path, part: str) -> Listing:
    """TinyImageNet: classes as wnids.txt orders them, the test split in one folder with a list.

    The published test split has no labels; as everywhere, the validation split stands for it.
    """
    folder = root / "tiny-imagenet-200"
    wnids = (folder / "wnids.txt").read_text("utf-8").split()
    names = _names_of(wnids)
    if part == "train":
        listing = _folders(folder / "train", wnids)
        return Listing(listing.files, listing.labels, names)
    number = {wnid: label for label, wnid in enumerate(wnids)}
    lines = (folder / "val" / "val_annotations.txt").read_text("utf-8").splitlines()
    rows = [line.split("\t")[:2] for line in lines if line]
    return Listing(
        [folder / "val" / "images" / name for name, _ in rows],
        [number[wnid] for _, wnid in rows],
        names,
    )


def synsets(classes: str) -> list[str]:
    """WordNet numbers of `imagenet`, `imagenet_a` or `imagenet_r`, in label order, from timm."""
    file = resources.files("timm.data._info") / f"{classes}_synsets.txt"
    return file.read_text("utf-8").split()


def _names_of(wnids: list[str]) -> list[str]:
    """open_clip's names of ImageNet's classes; two of them are there twice, as published."""
    from open_clip import IMAGENET_CLASSNAMES

    names = dict(zip(synsets("imagenet"), IMAGENET_CLASSNAMES, strict=True))
    unknown = [wnid for wnid in wnids if wnid not in names]
    if unknown:
        raise DataError(f"wnids.txt: {unknown[0]!r} is no class of ImageNet; unpack it anew")
    return [names[wnid] for wnid in wnids]


def _folders(folder: Path, classes: list[str]) -> Listing:
    """A folder a class, pictures at any depth below it; DataError for a class without any."""
    os.stat(folder)  # FileNotFoundError, before the first class is said to be what is missing
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in JPEGS)
        if not found:
            raise DataError(f"{folder / name}: no pictures of this class; unpack the archive anew")
        files += found
        labels += [label] * len(found)
    return Listing(files, labels, classes)
