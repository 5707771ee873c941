"""Any text-to-image pipeline goes through the same stage: SDXL, SD3 and PixArt, in small."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gift_core.errors import SettingsError
from tasks.generation import SynthesisSettings
from tasks.models.generators import DiffusersSettings, LoraSettings
from tasks.replay import load_pairs
from tasks.store.objects import FolderStore
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.tasks.models.tiny_pipelines import FAMILIES, save, save_lora, save_prude
from tests.worlds import GENERATOR

CPU = torch.device("cpu")
POOL = ("a photo of a red star.", "a photo of a dot pattern.", "a photo of a blue ring.")


@pytest.fixture(scope="module", params=FAMILIES)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("pipeline") / request.param)


def settings(folder: Path, **changes: object) -> DiffusersSettings:
    content = {"model": str(folder), "num_steps": 2, "guidance_scale": 3.0, "image_size": 16}
    return DiffusersSettings.model_validate(content | {"batch_size": 3} | changes)


def test_every_family_goes_through_the_stage(pipeline: Path, tmp_path: Path) -> None:
    generator = settings(pipeline)
    synthesis = SynthesisSettings(num_pairs=5, pairs_per_shard=5, generator=generator)
    plan = plan_pairs("cold", 1, POOL, synthesis, generator.check(), seed=7)
    digests = []
    for name in ("one", "two"):
        store = FolderStore(tmp_path / name)
        shard = generate_shard.fn(store, plan, 0, LazyGenerator(synthesis))().manifest
        digests.append(shard.digest)
        pairs = load_pairs(store, commit_pairs.fn(store, plan, [shard]).manifest)
        assert [pair.prompt for pair in pairs] == list(plan.prompts)
        images = [np.asarray(Image.open(io.BytesIO(pair.image_bytes))) for pair in pairs]
        assert {image.shape for image in images} == {(16, 16, 3)}
        assert len({image.tobytes() for image in images}) == 5
    assert digests[0] == digests[1]


def test_a_seed_is_a_picture_in_any_batch_of_any_family(pipeline: Path) -> None:
    generator = settings(pipeline).load(CPU)
    together = np.stack(generator.generate([*POOL, POOL[0]], [1, 2, 3, 4]).images).astype(int)
    for number in range(3):
        (alone,) = generator.generate(POOL[number : number + 1], [number + 1]).images
        assert np.abs(together[number] - alone).max() <= 1
    assert np.abs(together[0] - together[3]).max() > 8


def test_flow_matching_keeps_its_own_solver_and_refuses_another(tmp_path: Path) -> None:
    folder = save("sd3", tmp_path / "sd3")
    scheduler = settings(folder).load(CPU).pipeline.scheduler  # type: ignore[attr-defined]
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    with pytest.raises(SettingsError, match=r"solver: dpm\+\+ does not fit FlowMatchEuler"):
        settings(folder, solver="dpm++").load(CPU)


def test_what_the_safety_checker_flags_is_told_and_it_can_be_left_out(tmp_path: Path) -> None:
    folder = save_prude(tmp_path / "prude")
    prude = settings(folder, image_size=32, safety_checker="required").load(CPU)
    flagged = prude.generate(POOL, [1, 2, 3])
    assert flagged.flagged == [True] * 3
    assert not np.stack(flagged.images).any()
    free = settings(folder, image_size=32, safety_checker="off").load(CPU).generate(POOL, [1, 2, 3])
    assert free.flagged == [False] * 3
    usual = settings(GENERATOR, image_size=32).load(CPU).generate(POOL, [1, 2, 3])
    np.testing.assert_array_equal(free.images, usual.images)


def test_low_rank_weights_change_pictures_as_much_as_they_weigh(tmp_path: Path) -> None:
    path = str(save_lora(tmp_path))

    def pictures(*loras: LoraSettings) -> np.ndarray:
        generator = settings(GENERATOR, image_size=32, loras=loras).load(CPU)
        return np.stack(generator.generate(POOL, [1, 2, 3]).images).astype(int)

    without = pictures()
    np.testing.assert_array_equal(pictures(LoraSettings(path=path, weight=0.0)), without)
    weak, strong = (
        np.abs(pictures(LoraSettings(path=path, weight=weight)) - without).mean()
        for weight in (0.1, 1.0)
    )
    assert 0 < weak < strong


def test_low_rank_weights_are_part_of_what_the_generator_is(tmp_path: Path) -> None:
    path = save_lora(tmp_path)
    plain = settings(GENERATOR).check()
    identities = {
        settings(GENERATOR, loras=[{"path": str(path), "weight": weight}]).check()
        for weight in (0.5, 1.0)
    }
    assert len(identities) == 2
    assert all(identity.startswith(f"{plain}+") for identity in identities)


def test_weights_that_are_no_lora_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"no header")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, sentence in (
        ("torn.safetensors", "not a readable safetensors file"),
        ("other.safetensors", "holds no LoRA weights"),
        ("none.safetensors", "no file"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            settings(GENERATOR, loras=[{"path": str(tmp_path / name)}]).check()
