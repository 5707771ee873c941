"""Real pictures of the pretraining's concepts: captioned as the replay prompts, never scored."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from deployments.miniature.captions import captioned
from deployments.miniature.data_sets import build_split
from tasks.check import pretraining_prompts
from tasks.models.generators import RecordedSettings
from tasks.models.recorded import RecordedPictures
from tasks.sequence import load_sequence
from tasks.store.shards import write_shard
from tests.worlds import ROOT


def test_a_recorded_generator_knows_every_prompt_of_the_proxy(tmp_path: Path) -> None:
    pairs = captioned(1)
    write_shard(tmp_path / "captions.parquet", pairs)
    settings = RecordedSettings(kind="recorded", path=str(tmp_path / "captions.parquet"))
    generator = RecordedPictures(settings)
    prompts = pretraining_prompts(load_sequence(ROOT / "deployments/sequences/miniature.yaml"))
    assert set(generator.known_prompts) == set(prompts)
    assert generator.generate(prompts[:1], [0]).images[0].shape == (32, 32, 3)


def test_no_picture_is_one_that_is_scored() -> None:
    scored, _ = build_split("pretraining", "test")
    seen = {picture.tobytes() for picture in scored}
    drawn = [np.asarray(Image.open(io.BytesIO(pair.image_bytes))) for pair in captioned(1)]
    assert not seen & {picture.tobytes() for picture in drawn}
