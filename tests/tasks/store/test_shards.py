"""Shards: golden schema, equal bytes, and other people's readers open them unchanged."""

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gift_core.errors import StoreError
from tasks.store.objects import FolderStore
from tasks.store.shards import SCHEMA, ReplayPair, first_pairs, read_shard, write_shard
from tests.worlds import png, square

PAIRS = [
    ReplayPair(png(square("red", n)), f"a photo of a {n % 3}.", 7_000_000 + n, "g@1", "digits", n)
    for n in range(120)
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shard.parquet", PAIRS)
    return tmp_path / "shard.parquet"


def test_pairs_round_trip(shard: Path) -> None:
    assert read_shard(shard.read_bytes(), "x") == PAIRS


def test_the_first_pairs_are_read_without_the_rest(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = FolderStore.read_range

    def noted(store: FolderStore, path: str, start: int, num_bytes: int) -> bytes:
        read.append(num_bytes)
        return real(store, path, start, num_bytes)

    monkeypatch.setattr(FolderStore, "read_range", noted)
    store = FolderStore(tmp_path)
    assert first_pairs(store, "shard.parquet", 8) == PAIRS[:8]
    footer = 2**16  # what pyarrow reads at the end to find it
    assert sum(read) - footer < 0.45 * shard.stat().st_size
    assert first_pairs(store, "shard.parquet", 500) == PAIRS[:50], "one group of rows at most"
    with pytest.raises(StoreError, match=r"nowhere\.parquet does not exist"):
        first_pairs(store, "nowhere.parquet", 8)
    data = bytearray(shard.read_bytes())
    data[50_000] ^= 1  # in the middle of the first page of pictures
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="a torn or altered shard"):
        first_pairs(store, "shard.parquet", 8)
    shard.write_bytes(data[:-30])
    with pytest.raises(StoreError, match="a torn or altered shard"):
        first_pairs(store, "shard.parquet", 8)


def test_equal_pairs_are_equal_bytes(shard: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "again.parquet", PAIRS)
    assert shard.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_schema_is_the_one_that_was_promised(shard: Path) -> None:
    file = pq.ParquetFile(shard)
    assert [f"{field.name}: {field.type}" for field in file.schema_arrow] == [
        "image: struct<bytes: binary, path: string>",
        "prompt: string",
        "seed: int64",
        "generator: string",
        "task: string",
        "index: int64",
    ]
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert file.num_row_groups == 3
    assert file.metadata.row_group(0).column(0).compression == "UNCOMPRESSED"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_hugging_face_datasets_decodes_the_pictures(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    loaded = datasets.load_dataset(
        "parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 120
    row = loaded[3]
    np.testing.assert_array_equal(np.asarray(row["image"]), square("red", 3))
    assert (row["prompt"], row["seed"]) == ("a photo of a 0.", 7_000_003)


def test_duckdb_counts_them(shard: Path) -> None:
    (row,) = duckdb.sql(
        f"select count(*), count(distinct prompt), min(octet_length(image.bytes)) from '{shard}'"  # noqa: S608
    ).fetchall()
    assert row == (120, 3, min(len(pair.image_bytes) for pair in PAIRS))


def test_a_flipped_byte_in_a_picture_is_found(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    position = data.index(PAIRS[60].image_bytes) + 40
    data[position] ^= 1
    with pytest.raises(StoreError, match=r"shards/7: a torn or altered shard"):
        read_shard(bytes(data), "shards/7")


def test_a_torn_file_and_another_table_are_named(shard: Path) -> None:
    with pytest.raises(StoreError, match="shards/7: a torn or altered shard"):
        read_shard(shard.read_bytes()[:-30], "shards/7")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    with pytest.raises(StoreError, match="shards/7: not a shard of replay pairs"):
        read_shard(buffer.getvalue(), "shards/7")


def test_a_pair_without_a_picture_or_prompt_is_named() -> None:
    row = {"image": None, "prompt": "p", "seed": 1, "generator": "g", "task": "t", "index": 0}
    for change, name in (
        (row, "image.bytes"),
        (row | {"image": {"bytes": b"x"}, "prompt": None}, "prompt"),
    ):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([change], schema=SCHEMA), buffer)
        with pytest.raises(StoreError, match=f"shards/7: pairs without {name}"):
            read_shard(buffer.getvalue(), "shards/7")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.integers(0, 5000), st.booleans())
def test_damage_is_a_sentence_or_nothing_at_all(
    shard: Path, noise: bytes, place: int, at_the_end: bool
) -> None:
    """The footer, at the end, is the part without a checksum of its own."""
    data = bytearray(shard.read_bytes())
    if at_the_end:
        place = len(data) - 5_250 + place
    data[place : place + len(noise)] = noise
    try:
        pairs = read_shard(bytes(data), "shards/7")
    except StoreError as error:
        assert str(error).startswith("shards/7: ")
    else:
        assert pairs == PAIRS


def test_no_pairs_are_a_shard_too(tmp_path: Path) -> None:
    write_shard(tmp_path / "none.parquet", [])
    assert read_shard((tmp_path / "none.parquet").read_bytes(), "x") == []
