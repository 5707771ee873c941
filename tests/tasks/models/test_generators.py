"""The generator on the miniature's real diffusers pipeline."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler
from pydantic import TypeAdapter, ValidationError

from gift_core.cleaning import Cleaning, blemish
from gift_core.errors import SettingsError
from tasks.models.generators import DiffusersSettings, GeneratorSettings, SolverName
from tasks.models.pipelines import SOLVERS
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
    images = np.stack(together.images)
    assert images.dtype == np.uint8
    assert images.shape == (3, 32, 32, 3)
    assert together.flagged == [False] * 3
    np.testing.assert_array_equal(images, generator.generate(PROMPTS, [1, 2, 3]).images)
    (alone,) = generator.generate(PROMPTS[1:2], [2]).images
    assert np.abs(images[1].astype(int) - alone).max() <= 1
    (other,) = generator.generate(PROMPTS[1:2], [4]).images
    assert np.abs(images[1].astype(int) - other).max() > 8


def test_prompts_and_guidance_reach_the_picture() -> None:
    generator = settings().load(CPU)
    one, other = (generator.generate([prompt], [5]).images[0] for prompt in PROMPTS[:2])
    assert not np.array_equal(one, other)
    unguided = settings(guidance_scale=0.0).load(CPU).generate(PROMPTS[:1], [5]).images[0]
    assert not np.array_equal(one, unguided)


def scheduler_of(**changes: object) -> object:
    return settings(**changes).load(CPU).pipeline.scheduler  # type: ignore[attr-defined]


def test_released_solver_is_pndm_at_fifty_steps_and_dpm_below() -> None:
    assert isinstance(scheduler_of(solver="released", num_steps=50), PNDMScheduler)
    assert isinstance(scheduler_of(solver="released", num_steps=20), DPMSolverMultistepScheduler)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_makes_pictures_on_the_models_noise_schedule(solver: str) -> None:
    generator = settings(solver=solver, num_steps=4).load(CPU)
    kind, changes = SOLVERS[solver]
    scheduler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    assert type(scheduler).__name__ == kind
    assert scheduler.config.prediction_type == "v_prediction"
    assert all(scheduler.config[name] == value for name, value in changes.items())
    (image,) = generator.generate(PROMPTS[:1], [1]).images
    assert blemish(image, False, Cleaning()) is None


def test_a_batch_that_is_tried_is_short_decoded_and_saves_no_memory() -> None:
    generator = settings(num_steps=40).load(CPU)
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    sizes: list[tuple[str, int]] = []
    for name, part in (("unet", pipeline.unet), ("decoder", pipeline.vae.decoder)):
        part.register_forward_pre_hook(lambda _m, given, n=name: sizes.append((n, len(given[0]))))
    generator.try_batch(3)  # type: ignore[attr-defined]
    assert sizes == [("unet", 6), ("unet", 6), ("decoder", 3)]  # guided: each picture twice

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.vae.decoder.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        generator.try_batch(1)  # type: ignore[attr-defined]


def test_the_settings_name_every_solver() -> None:
    assert {*SOLVERS, "released", "model"} == set(get_args(SolverName))


def test_equal_prompts_are_encoded_once_and_pictures_stay_as_they_were() -> None:
    remembering = settings().load(CPU)
    encoder = remembering.pipeline.text_encoder  # type: ignore[attr-defined]
    sizes: list[int] = []
    encoder.register_forward_pre_hook(
        lambda module, given, named: sizes.append(len(given[0] if given else named["input_ids"])),
        with_kwargs=True,
    )
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0]]
    found = np.stack(remembering.generate(prompts, [1, 2, 3, 4]).images)
    assert sizes == [1] * 4  # two prompts, each with the empty one beside it
    np.testing.assert_array_equal(found, remembering.generate(prompts, [1, 2, 3, 4]).images)
    assert len(sizes) == 4
    plain = settings().load(CPU)
    del plain.pipeline.encode_prompt  # type: ignore[attr-defined] # the pipeline's own again
    difference = np.abs(found.astype(int) - np.stack(plain.generate(prompts, [1, 2, 3, 4]).images))
    assert difference.max() <= 1


def test_prompts_used_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.models.embeddings.MAX_BYTES", 1)
    generator = settings().load(CPU)
    first = np.stack(generator.generate(PROMPTS, [1, 2, 3]).images)
    known = generator.pipeline.encode_prompt._known  # type: ignore[attr-defined]
    assert list(known) == PROMPTS[-1:]
    np.testing.assert_array_equal(first, generator.generate(PROMPTS, [1, 2, 3]).images)


def test_channels_last_changes_nothing_but_the_layout() -> None:
    generator = settings(channels_last=True).load(CPU)
    weight = generator.pipeline.unet.conv_in.weight  # type: ignore[attr-defined]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    found = np.stack(generator.generate(PROMPTS, [1, 2, 3]).images).astype(int)
    usual = settings().load(CPU).generate(PROMPTS, [1, 2, 3])
    assert np.abs(found - np.stack(usual.images)).max() <= 1


def test_precision_is_what_was_asked_for() -> None:
    def dtype(**changes: object) -> torch.dtype:
        found: torch.dtype = settings(**changes).load(CPU).pipeline.unet.dtype  # type: ignore[attr-defined]
        return found

    assert dtype() == torch.float32
    assert dtype(precision="bf16") == torch.bfloat16


def test_compile_reaches_the_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself takes minutes; that it happens is torch's business."""
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__)
    )
    settings(compile=True).load(CPU)
    assert compiled == ["UNet2DConditionModel"]


def test_memory_that_runs_out_is_saved_step_by_step_and_then_refused(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The border is torch's allocator: it says so until pictures are decoded one by one."""
    generator = settings().load(CPU)
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    expected = np.stack(generator.generate(PROMPTS, [1, 2, 3]).images).astype(int)
    decode = pipeline.vae.decode

    def scarce(latents: torch.Tensor, **named: object) -> object:
        if not pipeline.vae.use_slicing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, **named)

    monkeypatch.setattr(pipeline.vae, "decode", scarce)
    found = np.stack(generator.generate(PROMPTS, [1, 2, 3]).images)
    assert np.abs(found - expected).max() <= 1
    assert "memory ran out: from here on pictures are decoded one by one" in caplog.text

    def never(latents: torch.Tensor, **named: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipeline.vae, "decode", never)
    with pytest.raises(SettingsError, match="batch_size: 3 pictures at once do not fit"):
        generator.generate(PROMPTS, [1, 2, 3])
    assert "attention is computed in slices" in caplog.text


def test_a_safety_checker_that_is_required_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"safety_checker: .* has none"):
        settings(safety_checker="required").load(CPU)


def test_settings_without_a_kind_mean_diffusers() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(GeneratorSettings)
    assert adapter.validate_python({"num_steps": 7}) == DiffusersSettings(num_steps=7)
    with pytest.raises(ValidationError, match="path"):
        adapter.validate_python({"kind": "recorded"})


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
