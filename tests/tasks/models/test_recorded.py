"""Recorded pictures in place of a generator: the same stage, nothing synthesised."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gift_core.errors import DataError, SettingsError
from tasks.generation import SynthesisSettings
from tasks.models.generators import RecordedSettings
from tasks.replay import load_pairs
from tasks.store.objects import FolderStore
from tasks.store.shards import ReplayPair, write_shard
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.worlds import png, square

CPU = torch.device("cpu")
CAPTIONS = ("a red square.", "a green square.", "a blue square.")
COLOURS = ("red", "green", "blue")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Thirty pictures, ten a caption, in the very form of our own shards."""
    pairs = [
        ReplayPair(png(square(COLOURS[n % 3], n)), CAPTIONS[n % 3], n, "camera", "photos", n)
        for n in range(30)
    ]
    write_shard(tmp_path / "recorded.parquet", pairs)
    return tmp_path / "recorded.parquet"


def settings(path: Path, **changes: object) -> RecordedSettings:
    return RecordedSettings.model_validate({"kind": "recorded", "path": str(path)} | changes)


def test_each_pair_is_a_recorded_picture_of_its_prompt(recorded: Path, tmp_path: Path) -> None:
    synthesis = SynthesisSettings(num_pairs=20, pairs_per_shard=20, generator=settings(recorded))
    pool = (*CAPTIONS, "a photo of nothing that was recorded.")
    plan = plan_pairs("cold", 1, pool, synthesis, settings(recorded).check(), seed=3)
    assert set(plan.prompts) == set(CAPTIONS)
    store = FolderStore(tmp_path / "store")
    shard = generate_shard.fn(store, plan, 0, LazyGenerator(synthesis))().manifest
    pairs = load_pairs(store, commit_pairs.fn(store, plan, [shard]).manifest)
    originals = {
        caption: [square(colour, n).tobytes() for n in range(30) if COLOURS[n % 3] == colour]
        for caption, colour in zip(CAPTIONS, COLOURS, strict=True)
    }
    chosen = set()
    for pair in pairs:
        image = np.asarray(Image.open(io.BytesIO(pair.image_bytes))).tobytes()
        assert image in originals[pair.prompt]
        chosen.add(image)
    assert len(chosen) > 8


def test_its_own_captions_can_be_the_pool(recorded: Path) -> None:
    with pytest.raises(SettingsError, match="no picture captioned as a prompt of the pool"):
        settings(recorded).pool(("a photo of a dog.",))
    assert settings(recorded, prompts="captions").pool(("a photo of a dog.",)) == CAPTIONS


def test_where_the_file_lies_is_not_what_it_is(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / recorded.name
    copy.write_bytes(recorded.read_bytes())
    assert settings(recorded).check() == settings(copy).check()


def test_what_is_no_file_of_captioned_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a readable Parquet file"):
        settings(tmp_path / "none.parquet").check()
    table = pa.table({"image": ["x"], "prompt": ["y"]})
    pq.write_table(table, tmp_path / "words.parquet")
    with pytest.raises(SettingsError, match="column image is no struct with bytes"):
        settings(tmp_path / "words.parquet").check()
    pictures = pa.array([{"bytes": b"x", "path": None}])
    pq.write_table(pa.table({"image": pictures, "prompt": [1]}), tmp_path / "numbers.parquet")
    with pytest.raises(SettingsError, match="column prompt holds no text"):
        settings(tmp_path / "numbers.parquet").check()


def test_a_torn_picture_is_named_by_its_row(tmp_path: Path) -> None:
    pictures = pa.array([{"bytes": b"torn", "path": None}])
    pq.write_table(pa.table({"image": pictures, "prompt": ["a star."]}), tmp_path / "torn.parquet")
    generator = settings(tmp_path / "torn.parquet").load(CPU)
    with pytest.raises(DataError, match=r"torn\.parquet: row 0: not a picture"):
        generator.generate(["a star."], [1])
    with pytest.raises(DataError, match="no picture captioned 'a ring"):
        generator.generate(["a ring."], [1])
