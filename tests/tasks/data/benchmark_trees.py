"""Small trees of the field's benchmarks in their true layouts, made from squares of ours.

Each writer returns what it wrote: for each split (or `all`, where the split is drawn) a label and
the number of a picture, in the order that the data set gives them.
"""

import io
import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from tasks.data.listings import synsets
from tests.worlds import square

Written = dict[str, list[tuple[int, int]]]
SPLITS = ("train", "val", "test")


@cache
def pixels(number: int) -> np.ndarray:
    """Picture `number`: uint8 (8, 8, 3)."""
    return square(("red", "green", "blue")[number % 3], number)[::4, ::4]


@cache
def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, format="JPEG")
    return buffer.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def two_classes(splits: tuple[str, ...], numbers: Iterator[int]) -> Written:
    """Three pictures a split, of classes 0, 1, 1."""
    return {split: [(label, next(numbers)) for label in (0, 1, 1)] for split in splits}


def aircraft(root: Path) -> Written:
    written, data = two_classes(SPLITS, count()), root / "fgvc-aircraft-2013b" / "data"
    names = ["707-320", "A300B4"]
    put(data / "variants.txt", "\n".join(names) + "\n")
    for split, rows in written.items():
        lines = [f"{number:07d} {names[label]}\n" for label, number in rows]
        put(data / f"images_variant_{split}.txt", "".join(lines))
        for _, number in rows:
            put(data / "images" / f"{number:07d}.jpg", jpeg(number))
    return written


def folders(root: Path, names: tuple[str, ...], file: str, per_class: int = 5) -> Written:
    """A folder a class; `file` names a picture by class and number."""
    rows, numbers = [], count()
    for label, name in enumerate(names):
        for within in range(1, per_class + 1):
            number = next(numbers)
            put(root / name / file.format(name=name, n=within), jpeg(number))
            rows.append((label, number))
    return {"all": rows}


def caltech101(root: Path) -> Written:
    folder = root / "caltech101" / "101_ObjectCategories"
    put(folder / "BACKGROUND_Google" / "image_0001.jpg", jpeg(99))
    return folders(folder, ("Faces", "ant"), "image_{n:04d}.jpg")


def cifar100(root: Path) -> Written:
    written, folder = two_classes(("train", "test"), count()), root / "cifar-100-binary"
    put(folder / "fine_label_names.txt", "apple\naquarium_fish\n")
    for split, rows in written.items():
        records = [
            bytes([0, label]) + large(number).transpose(2, 0, 1).tobytes() for label, number in rows
        ]
        put(folder / f"{split}.bin", b"".join(records))
    return written


def large(number: int) -> np.ndarray:
    """The picture as CIFAR has it: uint8 (32, 32, 3)."""
    return pixels(number).repeat(4, 0).repeat(4, 1)


def mnist(root: Path) -> Written:
    written, folder = two_classes(("train", "t10k"), count()), root / "MNIST" / "raw"
    for split, rows in written.items():
        grey = np.stack([pixels(number)[..., 0] for _, number in rows])
        head = np.array([3, 8, 8], dtype=">u4").tobytes()
        put(folder / f"{split}-images-idx3-ubyte", b"\0\0\x08\x03" + head + grey.tobytes())
        labels = bytes(label for label, _ in rows)
        put(folder / f"{split}-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x03" + labels)
    return {"train": written["train"], "test": written["t10k"]}


def dtd(root: Path) -> Written:
    written, folder, names = two_classes(SPLITS, count()), root / "dtd" / "dtd", ("banded", "wavy")
    for split, rows in written.items():
        files = [f"{names[label]}/{names[label]}_{number:04d}.jpg" for label, number in rows]
        put(folder / "labels" / f"{split}1.txt", "\n".join(files) + "\n")
        for file, (_, number) in zip(files, rows, strict=True):
            put(folder / "images" / file, jpeg(number))
    return written


def eurosat(root: Path) -> Written:
    return folders(root / "eurosat" / "2750", ("Forest", "River"), "{name}_{n}.jpg")


def flowers102(root: Path) -> Written:
    written, folder = two_classes(SPLITS, count(1)), root / "flowers-102"
    every = [row for rows in written.values() for row in rows]
    columns = {"train": "trnid", "val": "valid", "test": "tstid"}
    sets = {columns[split]: [number for _, number in rows] for split, rows in written.items()}
    folder.mkdir(parents=True)
    savemat(folder / "setid.mat", sets)
    savemat(folder / "imagelabels.mat", {"labels": [label + 1 for label, _ in every]})
    for _, number in every:
        put(folder / "jpg" / f"image_{number:05d}.jpg", jpeg(number))
    return written


def food101(root: Path) -> Written:
    written, folder = two_classes(("train", "test"), count()), root / "food-101"
    names = ("apple_pie", "waffles")
    for split, rows in written.items():
        lists: dict[str, list[str]] = {name: [] for name in names}
        for label, number in rows:
            lists[names[label]].append(f"{names[label]}/{number}")
            put(folder / "images" / names[label] / f"{number}.jpg", jpeg(number))
        put(folder / "meta" / f"{split}.json", json.dumps(lists))
    return written


def oxford_pet(root: Path) -> Written:
    written, folder = two_classes(("trainval", "test"), count()), root / "oxford-iiit-pet"
    names = ("Abyssinian", "american_bulldog")
    for split, rows in written.items():
        lines = [f"{names[label]}_{number} {label + 1} 1 1\n" for label, number in rows]
        put(folder / "annotations" / f"{split}.txt", "".join(lines))
        for label, number in rows:
            put(folder / "images" / f"{names[label]}_{number}.jpg", jpeg(number))
    return {"train": written["trainval"], "test": written["test"]}


def stanford_cars(root: Path) -> Written:
    written, folder = two_classes(("train", "test"), count()), root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, rows in written.items():
        kinds = [("class", np.uint8), ("fname", object)]
        table = [(label + 1, f"{number:05d}.jpg") for label, number in rows]
        savemat(folder / lists[split], {"annotations": np.array(table, dtype=kinds)})
        for _, number in rows:
            put(folder / f"cars_{split}" / f"{number:05d}.jpg", jpeg(number))
    return written


def sun397(root: Path) -> Written:
    folder, names = root / "SUN397", ("/a/abbey", "/a/apartment_building/outdoor")
    put(folder / "ClassName.txt", "\n".join(names) + "\n")
    inner = tuple(name.removeprefix("/") for name in names)
    return folders(folder, inner, "sun_{n:04d}.jpg")


def tiny_imagenet(root: Path) -> Written:
    folder, wnids = root / "tiny-imagenet-200", ("n02124075", "n01443537")
    put(folder / "wnids.txt", "\n".join(wnids) + "\n")
    train = folders(folder / "train", wnids, "images/{name}_{n}.JPEG", 2)["all"]
    test = [(0, 10), (1, 11), (0, 12)]
    lines = [f"val_{number}.JPEG\t{wnids[label]}\t0\t0\t9\t9\n" for label, number in test]
    put(folder / "val" / "val_annotations.txt", "".join(lines))
    for _, number in test:
        put(folder / "val" / "images" / f"val_{number}.JPEG", jpeg(number))
    return {"train": train, "test": test}


def imagenet(root: Path) -> Written:
    wnids = tuple(synsets("imagenet"))
    splits = {"train": "train", "test": "val"}
    return {
        split: folders(root / "imagenet" / part, wnids, "{name}_{n}.JPEG", 1)["all"]
        for split, part in splits.items()
    }


def only_tests(folder: str, classes: str = "imagenet") -> Callable[[Path], Written]:
    def write(root: Path) -> Written:
        names = synsets(classes)
        if folder.startswith("imagenetv2"):
            names = [str(number) for number in range(len(names))]
        return {"test": folders(root / folder, tuple(names), "{name}_{n}.jpg", 1)["all"]}

    return write


TREES: dict[str, Callable[[Path], Written]] = {
    "aircraft": aircraft,
    "caltech101": caltech101,
    "cifar100": cifar100,
    "dtd": dtd,
    "eurosat": eurosat,
    "flowers102": flowers102,
    "food101": food101,
    "mnist": mnist,
    "oxford-pet": oxford_pet,
    "stanford-cars": stanford_cars,
    "sun397": sun397,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
    "imagenet-v2": only_tests("imagenetv2-matched-frequency-format-val"),
    "imagenet-a": only_tests("imagenet-a", "imagenet_a"),
    "imagenet-r": only_tests("imagenet-r", "imagenet_r"),
    "imagenet-sketch": only_tests("sketch"),
}
