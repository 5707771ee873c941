"""Shards of replay pairs (placeholder while the real one is written)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class ReplayPair:
    image_bytes: bytes
    prompt: str
    seed: int
    generator: str
    task: str
    index: int


def write_shard(path: Path, pairs: Sequence[ReplayPair]) -> None:
    columns = {
        "image": [{"bytes": p.image_bytes, "path": None} for p in pairs],
        **{n: [getattr(p, n) for p in pairs] for n in ("prompt", "seed", "generator", "task", "index")},
    }
    pq.write_table(pa.table(columns), path)


def read_shard(data: bytes, where: str) -> list[ReplayPair]:
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return [ReplayPair(image_bytes=r.pop("image")["bytes"], **r) for r in rows]
