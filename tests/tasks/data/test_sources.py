"""Data sources on real files: what they read, and the one sentence for what they cannot."""

import io
import json
import tarfile
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gift_core.errors import DataError
from tasks.data.sources import CsvData, ImageFolderData, ParquetData, WebDatasetData
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


Source = ParquetData | ImageFolderData | WebDatasetData | CsvData
COLOURS = ("blue", "red")
PICTURES = [(label, png(square(COLOURS[label], number))) for number, label in enumerate((0, 1, 1))]


def write_tar(path: Path, members: list[tuple[str, bytes]], **changes: object) -> None:
    """A shard; `changes` are made to the headers of all its members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            for key, value in changes.items():
                setattr(header, key, value)
            archive.addfile(header, io.BytesIO(data))


def shard(pictures: list[tuple[int, bytes]]) -> list[tuple[str, bytes]]:
    members = []
    for number, (label, data) in enumerate(pictures):
        members += [(f"{number:04d}.png", data), (f"{number:04d}.cls", f"{label}\n".encode())]
    return members


def written(kind: type[Source], root: Path, split: str) -> Source:
    """The three pictures as a data set of that kind."""
    if kind is ParquetData:
        labels, pictures = zip(*PICTURES, strict=True)
        write_split(root / f"{split}.parquet", pictures, labels, COLOURS)
    elif kind is WebDatasetData:
        write_tar(root / f"{split}-000.tar", shard(PICTURES[:2]))
        write_tar(root / f"{split}-001.tar", shard(PICTURES[2:]))
        (root / "classnames.txt").write_text("blue\nred\n")
    else:
        for number, (label, data) in enumerate(PICTURES):
            path = root / split / COLOURS[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        rows = [f"{split}/{COLOURS[label]}/{n}.png,{COLOURS[label]}" for n, (label, _) in
                enumerate(PICTURES)]  # fmt: skip
        if kind is CsvData:
            (root / f"{split}.csv").write_text("\n".join(["path,class", *rows]))
    return kind(path=str(root))


@pytest.mark.parametrize("kind", get_args(Source))
def test_every_kind_reads_the_same_from_any_place_by_any_name(
    kind: type[Source], tmp_path: Path
) -> None:
    split = written(kind, tmp_path / "one", "test").open_split("test")
    assert split.class_names == COLOURS
    assert split.labels_N.tolist() == [0, 1, 1]
    for number, (label, _) in enumerate(PICTURES):
        shown = square(COLOURS[label], number)
        np.testing.assert_array_equal(np.asarray(split.image(number)), shown)
    other = written(kind, tmp_path / "two" / "deeper", "test").open_split("test")
    assert other.digest == split.digest
    held_out = written(kind, tmp_path / "three", "held-out")
    named = held_out.model_copy(update={"splits": {"test": "held-out"}}).open_split("test")
    assert named.labels_N.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="train"):
        held_out.open_split("train")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "*"])
def test_a_split_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        CsvData(path="x", splits={"test": name})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "its first line is"),
        ("path\na.png", "name a column path, and a column label"),
        ("path,label,class\na.png,1,x", "name a column path"),
        ("path,label", "no rows below its header"),
        ("path,label\na.png", "row 2 has 1 values, not 2"),
        ("path,label\na.png,-1", "row 2: label '-1' is no number"),
        ("path,label\na.png,red", "names belong into a column class"),
        ("path,label\nb.png,1", "row 2: no file 'b.png' below"),
        ("path,label\n../out.png,1", "leads out of the CSV's folder"),
        ("path,label\n/etc/passwd,1", "leads out of the CSV's folder"),
        ("path,label\nlink.png,1", "leads out of the CSV's folder"),
        ('path,label\n"a.png,1', "not readable as CSV"),
        ("path,class\na.png,", "class names are not a list of printable names"),
    ],
)
def test_a_wrong_csv_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "out.png").write_bytes(PICTURES[0][1])
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.png").write_bytes(PICTURES[0][1])
    (root / "link.png").symlink_to(tmp_path / "out.png")
    (root / "train.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        CsvData(path=str(root)).open_split("train")


def test_a_csv_of_numbers_names_no_classes_and_labels_count_for_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0][1])
    digests = []
    for label in (3, 4):
        (tmp_path / "train.csv").write_text(f"label,path\n{label},a.png\n")
        split = CsvData(path=str(tmp_path)).open_split("train")
        assert (split.class_names, split.labels_N.tolist()) == (None, [label])
        digests.append(split.digest)
    assert digests[0] != digests[1]


def test_a_shard_with_labels_in_json(tmp_path: Path) -> None:
    for number, key in enumerate(("label", "cls")):
        text = json.dumps({key: 5, "caption": "a thing"}).encode()
        members = [(f"a/{number}.seg.png", b"not looked at"), (f"a/{number}.jpg", PICTURES[0][1])]
        write_tar(tmp_path / "train" / f"{number}.tar", [*members, (f"a/{number}.json", text)])
    split = WebDatasetData(path=str(tmp_path)).open_split("train")
    assert (split.class_names, split.labels_N.tolist()) == (None, [5, 5])
    np.testing.assert_array_equal(np.asarray(split.image(1)), square("blue", 0))


SYMLINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}


@pytest.mark.parametrize(
    ("members", "changes", "sentence"),
    [
        ([("a.png", b"x")], {}, "a.png has no label; put a.cls beside it"),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")], {}, "has two images"),
        ([("a.png", b"x"), ("a.cls", b"one")], {}, "not a label"),
        ([("a.png", b"x"), ("a.cls", b"-1")], {}, "is no number from 0"),
        ([("a.png", b"x"), ("a.json", b"[]")], {}, r"label \[\] is no number"),
        ([("a.cls", b"1")], {}, "no images with a label"),
        ([("../a.png", b"x")], {}, "is no name of a sample"),
        ([("/a.png", b"x")], {}, "is no name of a sample"),
        ([("a.png", b"")], SYMLINK, "is no plain file; leave links out"),
        ([("a.png", b"")], {**SYMLINK, "type": tarfile.LNKTYPE}, "is no plain file"),
    ],
)
def test_a_wrong_shard_is_one_sentence(
    tmp_path: Path, members: list[tuple[str, bytes]], changes: dict[str, object], sentence: str
) -> None:
    write_tar(tmp_path / "train.tar", members, **changes)
    with pytest.raises(DataError, match=sentence):
        WebDatasetData(path=str(tmp_path)).open_split("train")


def test_a_torn_or_compressed_shard_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    source = WebDatasetData(path=str(tmp_path))
    write_tar(path, shard(PICTURES))
    whole = path.read_bytes()
    second = whole.index(b"0001.png")
    for torn in (whole[:second], whole[: second + 600], whole[:100], b"", b"x" * 2000):
        path.write_bytes(torn)
        with pytest.raises(DataError, match=r"torn|not a readable tar file"):
            source.open_split("train")
    path.write_bytes(whole[:second] + b"\x01" + whole[second + 1 :])  # its checksum is wrong now
    with pytest.raises(DataError, match=f"torn at byte {second}"):
        source.open_split("train")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "a.png")
    with pytest.raises(DataError, match="not a readable tar file"):
        source.open_split("train")
