"""A pipeline blackens a fifth of its pictures, as a safety checker does: the pairs are whole."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.artifacts import pairs_markdown, sample_pairs
from tasks.generation import SynthesisSettings
from tasks.models.generators import DiffusersSettings
from tasks.models.pipelines import PipelineGenerator
from tasks.replay import load_pairs
from tasks.store.objects import FolderStore
from tasks.synthesize import commit_pairs, generate_shard, plan_pairs
from tests.worlds import GENERATOR

POOL = ("a photo of a red star.", "a photo of a dot pattern.", "a photo of a blue ring.")


class Blackening:
    """The double: the miniature's own pipeline, whose every fifth picture comes out black.

    Which one is told by its seed, so that it is the same picture whenever it is made.
    """

    def __init__(self, pipeline: Any, told: bool) -> None:  # noqa: ANN401 - any pipeline
        self._pipeline, self._told = pipeline, told
        self.num_black = 0

    def __call__(self, prompt: list[str], generator: list[torch.Generator], **named: Any) -> Any:  # noqa: ANN401
        images = self._pipeline(prompt, generator=generator, **named).images
        black = [each.initial_seed() * 2654435761 % 2**32 < 2**32 // 5 for each in generator]
        self.num_black += sum(black)
        images[torch.tensor(black)] = 0.0
        return SimpleNamespace(images=images, nsfw_content_detected=black if self._told else None)


@pytest.mark.parametrize(("told", "reason"), [(False, "black"), (True, "unsafe")])
def test_exactly_as_many_good_pairs_and_the_rest_counted(
    told: bool, reason: str, tmp_path: Path
) -> None:
    settings = DiffusersSettings(
        model=str(GENERATOR),
        num_steps=2,
        guidance_scale=3.0,
        image_size=32,
        solver="model",
        batch_size=16,
    )
    synthesis = SynthesisSettings(num_pairs=48, pairs_per_shard=24, generator=settings)
    plan = plan_pairs("cold", 1, POOL, synthesis, settings.check(), seed=0)
    generator = PipelineGenerator(settings, torch.device("cpu"))
    generator.pipeline = double = Blackening(generator.pipeline, told)
    store = FolderStore(tmp_path)
    shards = [generate_shard.fn(store, plan, s, lambda: generator)().manifest for s in plan.starts]
    manifest = commit_pairs.fn(store, plan, shards).manifest
    assert 4 <= double.num_black <= 20
    assert (manifest.num_pairs, manifest.rejected) == (48, {reason: double.num_black})
    pairs = load_pairs(store, manifest)
    assert [pair.prompt for pair in pairs] == list(plan.prompts)
    assert all(np.asarray(Image.open(io.BytesIO(pair.image_bytes))).any() for pair in pairs)
    shown = pairs_markdown(manifest, sample_pairs(store, manifest, 8))
    assert f"48 pairs kept, {double.num_black} pictures replaced" in shown
