"""Shards of replay pairs: Parquet files that Hugging Face `datasets` and DuckDB open unchanged.

Images stay encoded: neither compression nor a dictionary would make PNG bytes smaller, and both
make reading slower. Pages carry checksums, because a flipped byte in an image is otherwise read
without complaint. Row groups are small, so that one pair can be read without the rest.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gift_core.errors import StoreError
from tasks.store.failures import explained
from tasks.store.objects import ObjectStore
from tasks.store.seeking import StoredFile

ROWS_A_GROUP = 50
_FEATURES = {
    "image": {"_type": "Image"},
    "prompt": {"dtype": "string", "_type": "Value"},
    "seed": {"dtype": "int64", "_type": "Value"},
    "generator": {"dtype": "string", "_type": "Value"},
    "task": {"dtype": "string", "_type": "Value"},
    "index": {"dtype": "int64", "_type": "Value"},
}
SCHEMA = pa.schema(
    [
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("generator", pa.string()),
        pa.field("task", pa.string()),
        pa.field("index", pa.int64()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
"""Columns of a shard; the metadata makes `datasets` decode the images."""


@dataclass(frozen=True)
class ReplayPair:
    """A synthetic picture with the prompt and seed that it was generated from.

    `index` is the pair's number in its task's plan; pictures left out leave gaps.
    """

    image_bytes: bytes
    prompt: str
    seed: int
    generator: str
    task: str
    index: int


_PLAIN_COLUMNS = tuple(field.name for field in fields(ReplayPair) if field.name != "image_bytes")


def write_shard(path: Path, pairs: Sequence[ReplayPair]) -> None:
    """Write pairs as one Parquet file; equal pairs are equal bytes for one version of pyarrow.

    StoreError when the disk is full.
    """
    columns: dict[str, list[object]] = {
        name: [getattr(pair, name) for pair in pairs] for name in _PLAIN_COLUMNS
    }
    columns["image"] = [
        {"bytes": pair.image_bytes, "path": f"{pair.task}-{pair.index:06d}.png"} for pair in pairs
    ]
    texts = ["prompt", "generator", "task"]
    with explained("write", str(path)):
        pq.write_table(
            pa.table(columns, schema=SCHEMA),
            path,
            row_group_size=ROWS_A_GROUP,
            compression={"image.bytes": "none", "image.path": "none"}
            | dict.fromkeys(_PLAIN_COLUMNS, "zstd"),
            use_dictionary=texts,
            write_page_checksum=True,
        )


def read_shard(data: bytes, where: str) -> list[ReplayPair]:
    """Read a shard whole, checksums verified; StoreError naming `where` when it is not one."""
    # ValueError: names in the footer, which has no checksum, need not be text any more.
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _torn(where, error) from None
    return _pairs(table, where)


def first_pairs(store: ObjectStore, path: str, count: int) -> list[ReplayPair]:
    """Read the first pairs of a shard, at most its first group of rows; for those who only look.

    The checksums of the pages that are read are verified, the digest of the file is not. Raises
    StoreError when the shard is missing, torn, or none.
    """
    where = f"{store.url}/{path}"
    try:
        file = pq.ParquetFile(
            pa.PythonFile(StoredFile(store, path), mode="r"),
            page_checksum_verification=True,
            pre_buffer=False,
        )
        batches = file.iter_batches(batch_size=count, row_groups=range(min(1, file.num_row_groups)))
        first = next(batches, None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _torn(where, error) from None
    if first is None:
        return []
    return _pairs(pa.Table.from_batches([first], schema=file.schema_arrow), where)


def _torn(where: str, error: Exception) -> StoreError:
    return StoreError(f"{where}: a torn or altered shard ({error}); make it again")


def _pairs(table: pa.Table, where: str) -> list[ReplayPair]:
    try:
        names, is_shard = table.schema.names, table.schema.equals(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise _torn(where, error) from None
    if not is_shard:
        raise StoreError(f"{where}: not a shard of replay pairs, its columns are {names}")
    flat = table.flatten().drop_columns("image.path")
    if empty := [name for name in flat.column_names if flat[name].null_count]:
        raise StoreError(f"{where}: pairs without {', '.join(empty)}; make the shard again")
    return [
        ReplayPair(image_bytes=row["image.bytes"], **{name: row[name] for name in _PLAIN_COLUMNS})
        for row in flat.to_pylist()
    ]
