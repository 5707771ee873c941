"""Real pictures of the pretraining's concepts: captioned as the replay prompts, never scored."""

from pathlib import Path

from deployments.miniature.captions import captioned
from deployments.miniature.data_sets import _FIRST_SEED, DRAWN_SIZES
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


def test_no_picture_has_a_seed_of_a_data_set() -> None:
    scored = max(_FIRST_SEED.values()) + max(max(sizes.values()) for sizes in DRAWN_SIZES.values())
    assert min(pair.seed for pair in captioned(1)) > scored
