"""Broken inputs from users: each is a value or one sentence, soon, and no file elsewhere.

With test_fuzz_store.py there are more than ten thousand. `make test` always draws the same inputs.
Others, and more, are drawn with

    python -m pytest tests/hostile/test_fuzz_files.py -p tests.hostile.more --hypothesis-seed 7
"""

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from tasks.data.sources import CsvData, DataSource, ParquetData, WebDatasetData
from tasks.images import decode_rgb
from tasks.models.generators import DiffusersSettings
from tasks.models.starting_model import ModelSettings, check_model
from tasks.sequence import load_sequence
from tasks.store.checkpoints import load_tensors
from tasks.task_file import read_task
from tests.hostile.harness import Inputs, inputs, read
from tests.hostile.mutations import NASTY, Json, changed, flipped
from tests.worlds import CLIP, GENERATOR, png, square, write_split

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("begun")]
NUM_INPUTS = 7_500


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    buffer = io.BytesIO()
    Image.fromarray(square("red", 1)).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


# Sequence files

SEQUENCE = {
    "name": "tiny",
    "model": {"architecture": "ViT-B-16", "pretrained": "openai"},
    "tasks": [
        {
            "name": "warm",
            "data": {"kind": "parquet", "path": "data/warm"},
            "class_names": ["red", "green"],
            "templates": ["a photo of a {}."],
        }
    ],
    "synthesis": {"num_pairs": 6, "generator": {"num_steps": 2, "image_size": 32}},
    "finetune": {"num_steps": 3, "objective": {"distillation": {"weight": 1}}},
    "gate": {"min_gain": 1.5},
    "store": {"url": "store"},
}


@inputs(1200)
@given(content=changed(SEQUENCE))
def test_sequences_of_other_kinds(folder: Path, content: Json) -> None:
    file = folder / "sequence.yaml"
    file.write_text(json.dumps(content))
    read(lambda: load_sequence(file), folder)


LINES = b"""# a sequence
name: tiny
seed: 0x7
model: {architecture: ViT-B-16, pretrained: openai}
tasks: &tasks
- name: warm
  data: {kind: parquet, path: "data"}
  templates: ['a {}', &t "{} \\n"]
panel: []
<<: {baseline: !!str 12}
gate: {min_gain: 1.5e0}
"""


@inputs(800)
@given(data=flipped([LINES]))
def test_sequence_files_with_other_bytes(folder: Path, data: bytes) -> None:
    file = folder / "sequence.yaml"
    file.write_bytes(data)
    read(lambda: load_sequence(file), folder)


YAML_WORDS = st.sampled_from(
    ["&a ", "*a", "[", "]", "{", "}", ": ", "- ", "\n", "  ", "? ", "<<: ", "!!int ", "!!float ",
     "!!binary ", "!!timestamp ", "!!python/name:os.system ", "!!set ", "!!omap ", "'", '"', "|",
     "%YAML 1.1\n", "---\n", "...\n", "name", "tasks", "2001-99-99", "1:99", "0x", ".inf", "~", "#"]
)  # fmt: skip


@inputs(700)
@given(words=st.lists(YAML_WORDS, max_size=40))
def test_words_of_yaml_in_any_order(folder: Path, words: list[str]) -> None:
    file = folder / "sequence.yaml"
    file.write_text("".join(words))
    read(lambda: load_sequence(file), folder)


# Pictures

PICTURES = [
    encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "LA"), encoded("PNG", "I;16"),
    encoded("JPEG"), encoded("JPEG", "CMYK"), encoded("WEBP"), encoded("WEBP", lossless=True),
    encoded("GIF"), encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"),
    encoded("TIFF", "F"), encoded("BMP"), encoded("PPM"),
]  # fmt: skip


@inputs(1300)
@given(data=flipped(PICTURES, start=64))
def test_pictures(folder: Path, data: bytes) -> None:
    read(lambda: decode_rgb(data, "picture 7"), folder)


# Data sets and tasks


def use(source: DataSource) -> None:
    split = source.open_split("train")
    for index in range(min(3, len(split))):
        split.image(index)


def use_split(root: Path) -> None:
    use(ParquetData(path=str(root)))


def archive(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            file.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def a_split(folder: Path) -> bytes:
    write_split(folder / "whole.parquet", [png(square("red", 1))] * 2, [0, 1], ["a", "b"])
    return (folder / "whole.parquet").read_bytes()


@inputs(700)
@given(data=st.data())
def test_data_sets_with_other_bytes(folder: Path, a_split: bytes, data: st.DataObject) -> None:
    (folder / "train.parquet").write_bytes(data.draw(flipped([a_split], start=-1200)))
    read(lambda: use_split(folder), folder)


COLUMNS: list[pa.Array] = [
    pa.array([0, 1]),
    pa.array([2**64 - 1, 0], pa.uint64()),
    pa.array([-(2**63), None], pa.int64()),
    pa.array(["x" * 100_000, "\0"]),
    pa.array([[1], []]),
    pa.array([True, False]),
    pa.array([0.5, float("nan")]),
    pa.array(["a", "a"]).dictionary_encode(),
    pa.array([0, 1], pa.int8()).dictionary_encode(),
    pa.nulls(2),
    pa.array([b"", b"GIF89a"]),
    *(
        pa.array([{"bytes": value, "path": "../../x"}, None])
        for value in (b"", b"\x89PNG", "text", 1, [1], {"bytes": b""}, None, png(square("red", 1)))
    ),
    pa.StructArray.from_arrays([pa.array([b"a", b"b"])] * 2, names=["bytes", "bytes"]),
    pa.array([[{"bytes": b"a"}], []]),
]
NAMES = st.sampled_from(["image", "label", "image", "label", "bytes", "", "\0", "image.bytes"])
CLASS_NAMES = st.sampled_from(
    [b"", b"{", b"[" * 100_000, b"\xff", b"null"]
    + [
        json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()
        for names in (
            *NASTY,
            [None],
            ["a", 1],
            ["\x1b[2J"],
            ["../x", "b"],
            ["a" * 10_000],
            ["a", "b"],
        )
        if not isinstance(names, float)
    ]
)


@inputs(600)
@given(
    columns=st.lists(st.tuples(NAMES, st.sampled_from(COLUMNS)), min_size=1, max_size=4),
    metadata=CLASS_NAMES,
)
def test_data_sets_of_other_columns(
    folder: Path, columns: list[tuple[str, pa.Array]], metadata: bytes
) -> None:
    table = pa.table([column for _, column in columns], names=[name for name, _ in columns])
    table = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, folder / "train.parquet")
    read(lambda: use_split(folder), folder)


RED = png(square("red", 1))
SHARD = archive([("0.png", RED), ("0.cls", b"1"), ("b/1.png", RED), ("b/1.json", b'{"label": 0}')])


@inputs(300)
@given(data=flipped([SHARD, archive([])], start=512))
def test_tar_shards(folder: Path, data: bytes) -> None:
    (folder / "train.tar").write_bytes(data)
    read(lambda: use(WebDatasetData(path=str(folder))), folder)


LIST = b'path,class,x\r\nsub/a.png,red,\n"a.png","b,""c",1\nsub/../a.png,red,2\n'


@inputs(300)
@given(data=flipped([LIST, LIST.replace(b"class", b"label").replace(b"red", b"7")]))
def test_csv_lists(folder: Path, data: bytes) -> None:
    root = folder / "listed"
    (root / "sub").mkdir(parents=True, exist_ok=True)
    for path in (root / "a.png", root / "sub" / "a.png"):
        path.write_bytes(png(square("red", 1)))
    (root / "train.csv").write_bytes(data)
    read(lambda: use(CsvData(path=str(root))), folder)


TASK = {
    "name": "birds",
    "class_names": ["heron", "kite"],
    "templates": ["a photo of a {}."],
    "learning_rate": 0.1,
    "splits": {"test": "held-out"},
    "data": {"kind": "csv", "path": "list"},
}


@inputs(300)
@given(content=changed(TASK))
def test_task_files(folder: Path, content: Json) -> None:
    place = folder / "arrived"
    place.mkdir(exist_ok=True)
    (place / "task.yaml").write_text(json.dumps(content))

    def look() -> None:
        task = read_task(place, "arrived")
        assert Path(task.data.path).resolve().is_relative_to(place.resolve())

    read(look, folder)


# Models


TENSORS = save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.float16)})
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@inputs(600)
@given(data=flipped([TENSORS], start=160))
def test_safetensors_with_other_bytes(folder: Path, data: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(data)
    read(lambda: load_tensors(folder / "weights.safetensors"), folder)


@inputs(600)
@given(
    header=changed({"__metadata__": {"format": "pt"}, "a": ENTRY, "b": {**ENTRY, "dtype": "BF16"}}),
    length=st.none() | st.sampled_from([0, 1, 7, 2**31, 2**63, 2**64 - 1]),
    body=st.sampled_from([0, 24, 36, 1000]),
)
def test_safetensors_of_other_headers(
    folder: Path, header: Json, length: int | None, body: int
) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text) if length is None else length) + text + bytes(body)
    (folder / "weights.safetensors").write_bytes(content)
    read(lambda: load_tensors(folder / "weights.safetensors"), folder)


@inputs(300)
@given(config=changed(json.loads((CLIP / "open_clip_config.json").read_text())))
def test_model_configs(folder: Path, config: Json) -> None:
    (folder / "open_clip_model.safetensors").write_bytes(TENSORS)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    read(lambda: check_model(ModelSettings(architecture=f"local-dir:{folder}")), folder)


@inputs(300)
@given(index=changed(json.loads((GENERATOR / "model_index.json").read_text())))
def test_pipeline_indices(folder: Path, index: Json) -> None:
    DiffusersSettings(model=str(GENERATOR)).check()  # imports diffusers, which takes seconds
    pipeline = folder / "pipeline"
    pipeline.mkdir(exist_ok=True)
    (pipeline / "model_index.json").write_text(json.dumps(index))
    read(lambda: DiffusersSettings(model=str(pipeline)).check(), folder)


def test_so_many_inputs_were_read(begun: tuple[int, int]) -> None:
    """Runs last: the file is one worker's, from top to bottom."""
    num, num_refused = Inputs.num - begun[0], Inputs.num_refused - begun[1]
    print(f"{num} inputs, {num_refused} refused")
    assert num >= NUM_INPUTS
    assert num / 4 < num_refused < num, "neither all refused nor none"
