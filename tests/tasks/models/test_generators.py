"""The generator on the miniature's real diffusers pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

from gift_core.errors import SettingsError
from tasks.models.generators import DiffusersSettings
from tests.worlds import GENERATOR

CPU = torch.device("cpu")
PROMPTS = ["a photo of a red star.", "a photo of a dot pattern.", "a photo of a blue ring."]


def settings(**changes: object) -> DiffusersSettings:
    content: dict[str, object] = {
        "model": str(GENERATOR),
        "num_steps": 2,
        "guidance_scale": 3.0,
        "image_size": 32,
        "solver": "model",
    }
    return DiffusersSettings.model_validate(content | changes)


def test_a_seed_is_a_picture_whatever_else_is_in_the_batch() -> None:
    generator = settings().load(CPU)
    together = generator.generate(PROMPTS, [1, 2, 3])
    assert together.dtype == np.uint8
    assert together.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(together, generator.generate(PROMPTS, [1, 2, 3]))
    alone = generator.generate(PROMPTS[1:2], [2])
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    other = generator.generate(PROMPTS[1:2], [4])
    assert np.abs(together[1].astype(int) - other[0]).max() > 8


def test_prompts_and_guidance_reach_the_picture() -> None:
    generator = settings().load(CPU)
    one, other = (generator.generate([prompt], [5])[0] for prompt in PROMPTS[:2])
    assert not np.array_equal(one, other)
    unguided = settings(guidance_scale=0.0).load(CPU).generate(PROMPTS[:1], [5])[0]
    assert not np.array_equal(one, unguided)


def test_released_solver_is_pndm_at_fifty_steps_and_dpm_below() -> None:
    at_fifty = settings(solver="released", num_steps=50).load(CPU)
    below = settings(solver="released", num_steps=20).load(CPU)
    assert isinstance(at_fifty.pipeline.scheduler, PNDMScheduler)  # type: ignore[attr-defined]
    assert isinstance(below.pipeline.scheduler, DPMSolverMultistepScheduler)  # type: ignore[attr-defined]


def test_identity_follows_the_folder_content(tmp_path: Path) -> None:
    identity = settings().check()
    assert identity.startswith("generator@")
    assert settings(num_steps=7).check() == identity
    hub = DiffusersSettings(model="org/name", revision="abc")
    assert hub.check() == "org/name@abc"


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (None, "not a diffusers pipeline folder"),
        ("{", "not a diffusers pipeline folder"),
        ('{"_class_name": "NoSuchPipeline"}', "names the pipeline NoSuchPipeline"),
    ],
)
def test_folders_that_are_no_pipeline(tmp_path: Path, index: str | None, sentence: str) -> None:
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(SettingsError, match=sentence):
        settings(model=str(tmp_path)).check()


def test_a_pipeline_without_its_parts_is_refused_when_loaded(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text((GENERATOR / "model_index.json").read_text())
    with pytest.raises(SettingsError, match="diffusers could not load"):
        settings(model=str(tmp_path)).load(CPU)
