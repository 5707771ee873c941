"""A world small enough for a test: two tasks of coloured squares, and the miniature's models.

The models are the miniature's own (the real formats in small); the data sets are drawn here.
"""

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.sequence import SequenceSettings

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "deployments" / "miniature" / "clip"
GENERATOR = ROOT / "deployments" / "miniature" / "generator"

COLOURS = {"red": (220, 38, 38), "green": (40, 170, 60), "blue": (50, 80, 230)}


def png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 picture (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def square(colour: str, seed: int) -> np.ndarray:
    """A noisy square of a colour on grey, 32 x 32."""
    generator = np.random.Generator(np.random.PCG64(seed))
    image = np.full((32, 32, 3), 120, dtype=np.int64) + generator.integers(-20, 20, (32, 32, 3))
    left, top = generator.integers(2, 12, 2)
    image[top : top + 16, left : left + 16] = COLOURS[colour]
    return image.clip(0, 255).astype(np.uint8)


def write_split(
    path: Path,
    pictures: Sequence[bytes | None],
    labels: Sequence[int],
    names: Sequence[str] | None,
) -> None:
    """One Parquet split in the form of Hugging Face `datasets`."""
    images = pa.array(
        [{"bytes": data, "path": None} for data in pictures],
        type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": images, "label": pa.array(labels, type=pa.int64())})
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": list(names)},
        }
        metadata = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({b"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_squares(folder: Path, colours: Sequence[str], num_train: int, num_test: int) -> None:
    """A data set of squares: train, validation and test."""
    for split, number, offset in (
        ("train", num_train, 0),
        ("validation", num_test, 10_000),
        ("test", num_test, 20_000),
    ):
        labels = [index % len(colours) for index in range(number)]
        pictures = [
            png(square(colours[label], offset + index)) for index, label in enumerate(labels)
        ]
        write_split(folder / f"{split}.parquet", pictures, labels, colours)


@cache
def _handwriting() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from deployments.miniature.real_pictures import handwritten_digits  # scikit-learn: a second

    return handwritten_digits()


def write_digits(folder: Path, digits: Sequence[int], num_train: int, num_test: int) -> None:
    """Some digits of scikit-learn's handwriting as a data set, so many pictures of each."""
    for split, number in (("train", num_train), ("test", num_test)):
        pictures, labels = _handwriting()[split]
        rows = [row for digit in digits for row in np.flatnonzero(labels == digit)[:number]]
        own = [digits.index(int(labels[row])) for row in rows]
        names = [str(digit) for digit in digits]
        write_split(folder / f"{split}.parquet", [png(pictures[row]) for row in rows], own, names)


def tiny_sequence(data: Path, store: str, **changes: object) -> SequenceSettings:
    """Two tasks, three steps each, six replay pairs; `changes` replace top-level keys."""
    content: dict[str, object] = {
        "name": "tiny",
        "seed": 7,
        "model": {"architecture": f"local-dir:{CLIP}"},
        "pretraining": {"class_names": ["red circle", "blue star", "dot pattern"]},
        "tasks": [
            {
                "name": name,
                "data": {"kind": "parquet", "path": str(data / name)},
                "class_names": words,
                "templates": ["a photo of a {}.", "a picture of a {}."],
            }
            for name, words in (
                ("warm", ["red square", "green square"]),
                ("cold", ["blue square", "green square"]),
            )
        ],
        "panel": [
            {
                "name": "panel",
                "data": {"kind": "parquet", "path": str(data / "warm")},
                "class_names": ["red square", "green square"],
            }
        ],
        "synthesis": {
            "num_pairs": 6,
            "pairs_per_shard": 4,
            "generator": {
                "model": str(GENERATOR),
                "num_steps": 2,
                "guidance_scale": 2.0,
                "image_size": 32,
                "solver": "model",
                "batch_size": 2,
            },
        },
        "finetune": {
            "num_steps": 3,
            "warmup_steps": 1,
            "batch_size": 4,
            "learning_rate": 1e-4,
        },
        "evaluation": {"batch_size": 8},
        "execution": {
            "workers": 0,
            "checkpoint_every": 2,
            "tensorboard": None,
            "cache": str(data / "cache"),
        },
        "store": {"url": store},
    }
    return SequenceSettings.model_validate({**content, **changes})


def write_tiny_data(folder: Path) -> Path:
    """The data of `tiny_sequence`."""
    write_squares(folder / "warm", ("red", "green"), 10, 6)
    write_squares(folder / "cold", ("blue", "green"), 10, 6)
    return folder
