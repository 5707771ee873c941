"""A LoRA of the generator's UNet: what it learns, what diffusers reads of it, what is refused."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from gift_core.errors import Diverged, SettingsError
from tasks.models.adaptation import WEIGHTS, AdaptationSettings, check_adaptable
from tasks.models.generators import DiffusersSettings, LoraSettings, RecordedSettings
from tasks.models.pipelines import PipelineGenerator
from tasks.models.unet_lora import Adapters, UnetLora
from tests.tasks.models.tiny_pipelines import save, save_lora
from tests.worlds import GENERATOR, square

CPU = torch.device("cpu")
PROMPTS = ["a photo of a red square.", "a photo of a blue square."]
SETTINGS = AdaptationSettings(rank=2, num_steps=4, batch_size=2, learning_rate=1e-2)
IMAGES = [Image.fromarray(square(("red", "blue")[n % 2], n)) for n in range(4)]


def generator(folder: Path = GENERATOR, **changes: object) -> PipelineGenerator:
    settings = {"num_steps": 2, "guidance_scale": 2.0, "solver": "model"} | changes
    loaded = DiffusersSettings(model=str(folder), **settings).load(CPU)
    assert isinstance(loaded, PipelineGenerator)
    return loaded


def learnt(
    folder: Path, settings: AdaptationSettings = SETTINGS, of: PipelineGenerator | None = None
) -> tuple[Path, list[float]]:
    lora = UnetLora(of or generator(), settings, seed=3)
    losses = list(lora.learn(IMAGES, PROMPTS * 2))
    folder.mkdir(exist_ok=True)
    lora.save(folder)
    return folder / WEIGHTS, losses


def pictures(made_by: PipelineGenerator) -> np.ndarray:
    return np.stack(list(made_by.generate(PROMPTS, [5, 6]).images))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnt(tmp_path_factory.mktemp("adapter"))[0]


def test_plain_diffusers_reads_the_weights_and_draws_the_same(weights: Path) -> None:
    ours = generator()
    adapters = Adapters(ours)
    adapters.take_in("red and blue", weights)
    adapters.use("red and blue")
    pipeline = StableDiffusionPipeline.from_pretrained(GENERATOR, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def drawn() -> Any:  # noqa: ANN401 - diffusers has no types
        seeds = [torch.Generator("cpu").manual_seed(seed) for seed in (5, 6)]
        asked = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "np"}
        return pipeline(PROMPTS, generator=seeds, **asked).images

    plain = drawn()
    pipeline.load_lora_weights(weights.parent, weight_name=WEIGHTS)
    adapted = drawn()
    assert np.abs(adapted - plain).max() > 0.05
    assert np.abs(np.round(adapted * 255) - pictures(ours).astype(float)).max() <= 1


def test_the_generator_itself_stays_bit_for_bit(weights: Path) -> None:
    ours = generator()
    before = pictures(ours)
    adapters = Adapters(ours)
    adapters.use(None)  # nothing was taken in
    adapters.take_in("one", weights)
    adapters.use("one")
    adapted = pictures(ours)
    adapters.use(None)
    assert not np.array_equal(adapted, before)
    assert np.array_equal(pictures(ours), before)
    adapters.use("one")
    assert np.array_equal(pictures(ours), adapted)


def test_equal_seeds_give_equal_weights_and_torchs_own_seed_does_not_matter(
    weights: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    drawn = torch.rand(())
    torch.manual_seed(99)
    again, _ = learnt(tmp_path)
    assert again.read_bytes() == weights.read_bytes()
    assert torch.rand(()) == drawn, "and it is not moved"


def test_the_loss_falls_and_only_the_update_is_kept(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"num_steps": 60, "layers": "all", "rank": 4})
    file, losses = learnt(tmp_path, settings)
    assert len(losses) == 60
    assert statistics.fmean(losses[-20:]) < 0.8 * statistics.fmean(losses[:20])
    names = set(load_file(file))
    assert all(name.startswith("unet.") and "lora" in name for name in names)
    assert any("conv1" in name for name in names)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("epsilon", lambda _latents, noise, _a: noise),
        ("sample", lambda latents, _noise, _a: latents),
        ("v_prediction", lambda x, noise, a: a.sqrt() * noise - (1 - a).sqrt() * x),
    ],
)
def test_the_unet_is_taught_what_its_scheduler_expects(
    kind: str, wanted: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    ours = generator()
    ours.pipeline.scheduler.register_to_config(prediction_type=kind)
    lora = UnetLora(ours, SETTINGS, 0)
    latents, noise = torch.randn(2, 1, 8, 8, 8).unbind()
    share = ours.pipeline.scheduler.alphas_cumprod[400]
    assert torch.allclose(
        lora._wanted(latents, noise, torch.tensor([400])), wanted(latents, noise, share), atol=1e-5
    )


def test_a_prompt_is_left_out_now_and_then() -> None:
    """The first condition is the pipeline's own of an empty prompt, not of a prompt."""
    lora = UnetLora(generator(), SETTINGS, 0)
    conditions, rows_N = lora._conditions(PROMPTS * 2)
    assert rows_N.tolist() == [1, 2, 1, 2]
    empty, _ = lora._pipeline.encode_prompt(
        prompt="", device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    texts = conditions["encoder_hidden_states"]
    assert torch.equal(texts[:1], empty)
    assert not torch.equal(texts[0], texts[1])


def test_it_goes_with_the_loras_of_the_settings(weights: Path, tmp_path: Path) -> None:
    style = LoraSettings(path=str(save_lora(tmp_path)))
    styled, plain = generator(loras=(style,)), generator()
    for each in (styled, plain):
        adapters = Adapters(each)
        adapters.take_in("one", weights)
        adapters.use("one")
    assert not np.array_equal(pictures(styled), pictures(plain))


def test_stable_diffusion_xl_is_adapted_as_well(tmp_path: Path) -> None:
    folder = save("sdxl", tmp_path / "sdxl")
    file, losses = learnt(tmp_path / "lora", of=generator(folder))
    assert len(losses) == SETTINGS.num_steps
    ours = generator(folder)
    before = pictures(ours)
    adapters = Adapters(ours)
    adapters.take_in("one", file)
    adapters.use("one")
    assert not np.array_equal(pictures(ours), before)


def test_a_pipeline_without_a_unet_is_refused_before_and_when_it_is_loaded(tmp_path: Path) -> None:
    folder = save("pixart", tmp_path / "pixart")
    with pytest.raises(SettingsError, match="pixart has no UNet"):
        check_adaptable(DiffusersSettings(model=str(folder)))
    with pytest.raises(SettingsError, match="pixart has no UNet"):
        UnetLora(generator(folder), SETTINGS, 0)


def test_recorded_pictures_are_refused_and_a_hub_name_is_looked_at_later() -> None:
    with pytest.raises(SettingsError, match="recorded pictures are no generator"):
        check_adaptable(RecordedSettings(kind="recorded", path="pictures.parquet"))
    check_adaptable(DiffusersSettings())
    check_adaptable(DiffusersSettings(model=str(GENERATOR)))


def test_weights_of_another_unet_are_refused(tmp_path: Path, weights: Path) -> None:
    other = generator(save("sdxl", tmp_path / "sdxl"))
    with pytest.raises(SettingsError, match="one does not fit the generator"):
        Adapters(other).take_in("one", weights)


def test_a_loss_that_is_no_number_ends_it() -> None:
    lora = UnetLora(generator(), SETTINGS, 0)
    lora._unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(Diverged, match="loss is nan at step 1"):
        list(lora.learn(IMAGES, PROMPTS * 2))
