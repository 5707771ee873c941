"""Data sources on real files: what they read, and the one sentence for what they cannot."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gift_core.errors import DataError
from tasks.data.sources import ImageFolderData, ParquetData
from tests.worlds import png, square, write_split


def write_folder(root: Path) -> None:
    for split, counts in (("train", {"blue": 2, "red": 3}), ("test", {"red": 1})):
        for name, number in counts.items():
            for index in range(number):
                path = root / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(square(name, index)))


def test_parquet_gives_pictures_labels_and_names(tmp_path: Path) -> None:
    pictures = [png(square("red", 1)), png(square("blue", 2))]
    write_split(tmp_path / "train.parquet", pictures, [0, 1], ["red", "blue"])
    split = ParquetData(path=str(tmp_path)).open_split("train")
    assert split.class_names == ("red", "blue")
    assert split.labels_N.dtype == np.int64
    assert split.labels_N.tolist() == [0, 1]
    np.testing.assert_array_equal(np.asarray(split.image(1)), square("blue", 2))


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        pictures = [png(square("red", seed))]
        write_split(tmp_path / name / "test.parquet", pictures, [0], ["red"])
    one, same, other = (
        ParquetData(path=str(tmp_path / name)).open_split("test").digest
        for name in ("one", "same", "other")
    )
    assert one == same
    assert one != other


def test_image_folder_labels_follow_sorted_names_over_all_splits(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = ImageFolderData(path=str(tmp_path))
    assert source.open_split("train").labels_N.tolist() == [0, 0, 1, 1, 1]
    test = source.open_split("test")
    assert test.class_names == ("blue", "red")
    assert test.labels_N.tolist() == [1]
    np.testing.assert_array_equal(np.asarray(test.image(0)), square("red", 0))


def test_missing_split_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*train\.parquet; put the train split there"):
        ParquetData(path=str(tmp_path)).open_split("train")
    with pytest.raises(DataError, match=r"no folder .*train; put the train split there"):
        ImageFolderData(path=str(tmp_path)).open_split("train")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pa.table({"label": [0]}), "no column image"),
        (pa.table({"image": ["x"], "label": [0]}), "not a struct with binary bytes"),
        (pa.table({"image": [{"bytes": b"x"}], "label": ["a"]}), "not an integer"),
        (
            pa.table({"image": [{"bytes": b"x"}], "label": pa.array([None], pa.int64())}),
            "1 rows have no label",
        ),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, table: pa.Table, sentence: str) -> None:
    pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(DataError, match=sentence):
        ParquetData(path=str(tmp_path)).open_split("test")


def test_torn_file_and_torn_picture_are_named(tmp_path: Path) -> None:
    pictures = [png(square("red", 1)), png(square("red", 2))[:200], None]
    path = tmp_path / "test.parquet"
    write_split(path, pictures, [0, 0, 0], None)
    split = ParquetData(path=str(tmp_path)).open_split("test")
    assert split.class_names is None
    with pytest.raises(DataError, match=r"test\.parquet: row 1: a torn picture"):
        split.image(1)
    with pytest.raises(DataError, match="row 2 has no image bytes"):
        split.image(2)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        ParquetData(path=str(tmp_path)).open_split("test")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "red").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in its class folders"):
        ImageFolderData(path=str(tmp_path)).open_split("train")
