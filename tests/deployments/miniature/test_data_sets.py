"""The written data sets: same bytes each time, the schema of `datasets`, disjoint splits."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deployments.miniature import data_sets
from deployments.miniature.vocabulary import HELD_OUT, PRETRAINING, SEEN

SIZES = {
    "digits": {"train": 850, "validation": 150, "test": 600},
    "photos": {"train": 700, "validation": 100, "test": 400},
    "sketches": {"train": 620, "validation": 100, "test": 480},
    "signs": {"train": 820, "validation": 140, "test": 480},
    "pretraining": {"test": 820},
    "held-out": {"test": 480},
}
NUM_CLASSES = {
    "digits": 10,
    "photos": 10,
    "sketches": 12,
    "signs": 16,
    "pretraining": 106,
    "held-out": 106,
}
FILES = [(name, split) for name, splits in SIZES.items() for split in splits]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all data sets."""
    written = tmp_path_factory.mktemp("miniature")
    data_sets.write_all(written)
    return written


def digests(folder: Path, name: str, split: str) -> list[str]:
    """Return the SHA-256 of each picture's pixels."""
    pictures, _ = data_sets.read_split(folder, name, split)
    return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]


def test_written_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    data_sets.write_all(tmp_path)
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert found == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(found) == len(FILES) + 1
    for path in found:
        assert (folder / path).read_bytes() == (tmp_path / path).read_bytes(), path


@pytest.mark.parametrize(("name", "split"), FILES)
def test_sizes_and_schema(folder: Path, name: str, split: str) -> None:
    table = pq.read_table(folder / name / f"{split}.parquet")
    assert table.num_rows == SIZES[name][split]
    assert str(table.schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(table.schema.field("label").type) == "int64"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["_type"] == "ClassLabel"
    assert len(features["label"]["names"]) == NUM_CLASSES[name]
    assert features["label"]["names"] == list(data_sets.CLASS_NAMES[name])


@pytest.mark.parametrize(("name", "split"), FILES)
def test_every_shown_class_is_there(folder: Path, name: str, split: str) -> None:
    pictures, labels = data_sets.read_split(folder, name, split)
    assert pictures.shape[1:] == (32, 32, 3)
    shown = {"pretraining": SEEN, "held-out": HELD_OUT}.get(name, data_sets.CLASS_NAMES[name])
    assert {data_sets.CLASS_NAMES[name][label] for label in labels} == set(shown)


@pytest.mark.parametrize("name", ["digits", "photos", "sketches", "signs"])
def test_no_picture_is_in_two_splits(folder: Path, name: str) -> None:
    train, validation, test = (set(digests(folder, name, split)) for split in SIZES[name])
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_panels_are_balanced(folder: Path) -> None:
    _, seen = data_sets.read_split(folder, "pretraining", "test")
    _, held_out = data_sets.read_split(folder, "held-out", "test")
    counts = np.bincount(seen, minlength=106) + np.bincount(held_out, minlength=106)
    expected = [20 if name in HELD_OUT else 10 for name in PRETRAINING]
    assert counts.tolist() == expected


def test_second_run_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    data_sets.write_all(folder)
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_changed_file_is_noticed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    digest = hashlib.sha256(b"as written").hexdigest()
    (tmp_path / "digits" / "test.parquet").write_bytes(b"as written")
    files = {"digits/test.parquet": digest}
    record = {"fingerprint": data_sets.fingerprint(), "files": files}
    (tmp_path / data_sets.RECORD).write_text(json.dumps(record))
    assert data_sets.is_complete(tmp_path)
    (tmp_path / "digits" / "test.parquet").write_bytes(b"damaged")
    assert not data_sets.is_complete(tmp_path)
    assert not data_sets.is_complete(tmp_path / "nowhere")


def test_hugging_face_decodes_it(folder: Path, tmp_path: Path) -> None:
    load = pytest.importorskip("datasets").load_dataset
    path = str(folder / "signs" / "validation.parquet")
    split = load("parquet", data_files=path, split="train", cache_dir=str(tmp_path))
    assert split[0]["image"].size == (32, 32)
    assert split.features["label"].names == list(data_sets.CLASS_NAMES["signs"])
