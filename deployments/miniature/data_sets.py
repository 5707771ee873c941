"""Write the data sets of the miniature world as Parquet: four tasks and two test panels.

`python -m deployments.miniature.data_sets OUT_DIR` writes OUT_DIR/<name>/<split>.parquet, always
the same bytes, and last OUT_DIR/data_sets.json: by it a second run sees that nothing is to do.
"""

import argparse
import hashlib
import io
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from deployments.miniature.pictures import draw
from deployments.miniature.real_pictures import handwritten_digits, photo_patches
from deployments.miniature.vocabulary import (
    HELD_OUT,
    PANEL_CLASS_NAMES,
    PATTERNS,
    SEEN,
    TASK_CLASS_NAMES,
    TASK_TEMPLATES,
    TEMPLATES,
)

CLASS_NAMES: dict[str, tuple[str, ...]] = {**TASK_CLASS_NAMES, **PANEL_CLASS_NAMES}
"""Class names of each data set, in the order of their labels."""

TEMPLATES_OF: dict[str, tuple[str, ...]] = {
    **TASK_TEMPLATES,
    "pretraining": TEMPLATES,
    "held-out": TEMPLATES,
}
"""Templates of each data set."""

SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(TASK_CLASS_NAMES, ("train", "validation", "test")),
    **dict.fromkeys(PANEL_CLASS_NAMES, ("test",)),
}
"""Splits of each data set."""

DRAWN_SIZES: dict[str, dict[str, int]] = {
    "sketches": {"train": 620, "validation": 100, "test": 480},
    "signs": {"train": 820, "validation": 140, "test": 480},
    "pretraining": {"test": 820},
    "held-out": {"test": 480},
}
"""Pictures in each split of the drawn data sets."""

RECORD = "data_sets.json"
# Each split draws from its own range of seeds, so that no picture is in two of them.
_FIRST_SEED = {"train": 1_000_000, "validation": 2_000_000, "test": 3_000_000}

Labelled = tuple[np.ndarray, np.ndarray]


def _kind_of(data_set: str, name: str) -> str:
    """Return the kind of picture that shows a class in a drawn data set."""
    if data_set == "sketches":
        return "pencil-sketch"
    if data_set == "signs":
        return "worn-sign"
    return "pattern" if name in PATTERNS else "shape"


def _shown_names(data_set: str) -> tuple[str, ...]:
    """Return the classes that a drawn data set shows: the panels show a part of all names."""
    return {"pretraining": SEEN, "held-out": HELD_OUT}.get(data_set, CLASS_NAMES[data_set])


def _drawn(data_set: str, split: str) -> Labelled:
    """Return pictures (uint8 [N, 32, 32, 3]) and labels (int64 [N]) of a drawn split."""
    shown, names = _shown_names(data_set), CLASS_NAMES[data_set]
    pictures, labels = [], []
    for number in range(DRAWN_SIZES[data_set][split]):
        name = shown[number % len(shown)]
        pictures.append(draw(_kind_of(data_set, name), name, _FIRST_SEED[split] + number))
        labels.append(names.index(name))
    return np.stack(pictures), np.array(labels, dtype=np.int64)


def build_split(name: str, split: str) -> Labelled:
    """Return a split's pictures (uint8 [N, 32, 32, 3]) and labels (int64 [N])."""
    if name == "digits":
        return handwritten_digits()[split]
    if name == "photos":
        return photo_patches()[split]
    return _drawn(name, split)


def _png(picture: np.ndarray) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _table(name: str, split: str, labelled: Labelled) -> pa.Table:
    """Return a split in the form that Hugging Face `datasets` decodes."""
    pictures, labels = labelled
    images = [
        {"bytes": _png(picture), "path": f"{split}-{number:05d}.png"}
        for number, picture in enumerate(pictures)
    ]
    class_label = {"names": list(CLASS_NAMES[name]), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": class_label}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"image": images, "label": labels.tolist()}, schema=schema)


def _write(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def _sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint() -> str:
    """Return a digest of all that the bytes depend on: our source and the libraries' versions."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    sources = (
        "canvas",
        "data_sets",
        "glyphs",
        "materials",
        "pictures",
        "real_pictures",
        "shapes",
        "textures",
        "vocabulary",
    )
    for source in sources:
        digest.update((folder / f"{source}.py").read_bytes())
    for library in ("numpy", "pillow", "scikit-image", "scikit-learn", "matplotlib", "pyarrow"):
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


def is_complete(folder: Path) -> bool:
    """Return whether the folder holds all files as this version writes them."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return bool(record["fingerprint"] == fingerprint()) and all(
            _sha256(folder / path) == digest for path, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def write_all(folder: Path) -> None:
    """Write every data set and the record into the folder; print a line for each data set."""
    if is_complete(folder):
        print(f"{folder} already holds every data set of this version: nothing to do")
        return
    files: dict[str, str] = {}
    for name, class_names in CLASS_NAMES.items():
        sizes = []
        for split in SPLITS[name]:
            labelled, buffer = build_split(name, split), io.BytesIO()
            pq.write_table(_table(name, split, labelled), buffer, compression="snappy")
            path = Path(name, f"{split}.parquet")
            _write(folder / path, buffer.getvalue())
            files[path.as_posix()] = _sha256(folder / path)
            sizes.append(f"{split} {len(labelled[1])}")
        print(f"{name}: {', '.join(sizes)} images, {len(class_names)} classes", flush=True)
    record = {"fingerprint": fingerprint(), "files": files}
    _write(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def read_split(folder: Path, name: str, split: str) -> Labelled:
    """Read a split back: pictures (uint8 [N, 32, 32, 3]) and labels (int64 [N])."""
    table = pq.read_table(folder / name / f"{split}.parquet")
    rows = table.column("image").to_pylist()
    pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows]
    return np.stack(pictures), np.array(table.column("label").to_pylist(), dtype=np.int64)


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    write_all(parser.parse_args().folder)


if __name__ == "__main__":
    main()
