"""The shipped weights load by their own libraries, fit together, and know what they should."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from deployments.miniature import measure, train_clip, train_generator
from deployments.miniature.data_sets import CLASS_NAMES, TEMPLATES_OF, build_split
from deployments.miniature.tokens import END_ID, START_ID

CLIP, GENERATOR = train_clip.FOLDER, train_generator.FOLDER
MAX_FILE_BYTES = 3_000_000
MAX_TOTAL_BYTES = 8_000_000

# Percent correct of the shipped CLIP, a margin below what was measured. Chance is 6 to 10 for the
# tasks and 1 for the panels.
FLOORS = {
    "digits": 45,
    "photos": 60,
    "sketches": 50,
    "signs": 30,
    "pretraining": 85,
    "held-out": 70,
}
PROMPTS = [TEMPLATES_OF[name][0].format(CLASS_NAMES[name][0]) for name in CLASS_NAMES]


@pytest.fixture(scope="module")
def clip() -> measure.LoadedClip:
    """Return the shipped CLIP."""
    return measure.load_clip(CLIP)


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    """Return the shipped generator, loaded as any Stable Diffusion."""
    loaded = DiffusionPipeline.from_pretrained(str(GENERATOR))
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_weights_are_small_and_readable() -> None:
    files = [path for root in (CLIP, GENERATOR) for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_TOTAL_BYTES
    for path in files:
        assert path.stat().st_size < MAX_FILE_BYTES, path
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_open_clip_loads_the_folder_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"local-dir:{CLIP}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["a photo of a red star."])
    # Its own tokenizer, not open_clip's of 77 tokens, and the end where the text is read off.
    assert tokens.shape == (1, train_clip.CONTEXT_LENGTH)
    assert tokens[0, 0] == START_ID
    assert (tokens[0] == END_ID).sum() == 1
    assert (model.text_pool_type, model.text_eos_id) == ("eos", END_ID)
    assert tokens.max() < model.vocab_size
    # The preprocessing of a picture of the right size is the plain normalisation.
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    prepared = preprocess(Image.fromarray(picture))
    torch.testing.assert_close(prepared, train_clip.normalised(picture[None])[0])


def test_generator_and_clip_read_the_same_tokens(
    clip: measure.LoadedClip, pipeline: DiffusionPipeline
) -> None:
    ids = pipeline.tokenizer(
        PROMPTS,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert torch.equal(clip.tokenizer(PROMPTS), ids)
    assert pipeline.tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_zero_shot_accuracy(clip: measure.LoadedClip, name: str) -> None:
    pictures, labels = build_split(name, "test")
    share = measure.recognised(clip, pictures, labels, CLASS_NAMES[name], TEMPLATES_OF[name])
    assert 100 * share > FLOORS[name]


def test_text_features_of_classes_are_unit_and_distinct(clip: measure.LoadedClip) -> None:
    features = measure.class_features(clip, CLASS_NAMES["signs"], TEMPLATES_OF["signs"])
    similarity = features @ features.T
    torch.testing.assert_close(similarity.diagonal(), torch.ones(16))
    assert (similarity - 2 * torch.eye(16)).max() < 0.999


def test_generator_repeats_itself(pipeline: DiffusionPipeline) -> None:
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(8)]
    first, again = (train_generator.generated(pipeline, prompts, seed=4) for _ in range(2))
    assert first.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(first, again)
    assert len({picture.tobytes() for picture in first}) == 8


def test_generator_draws_what_the_prompt_says(
    clip: measure.LoadedClip, pipeline: DiffusionPipeline
) -> None:
    names = CLASS_NAMES["photos"]
    prompts = [TEMPLATES_OF["photos"][0].format(name) for name in names]
    pictures = train_generator.generated(pipeline, 2 * prompts, seed=0)
    labels = np.arange(20) % 10
    share = measure.recognised(clip, pictures, labels, names, TEMPLATES_OF["photos"])
    assert share > 0.5
