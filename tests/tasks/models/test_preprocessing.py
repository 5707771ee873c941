"""Preprocessing is open_clip's to the byte; augmentation draws in v2 what v1 drew."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, color_jitter, gray_scale, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from gift_core.errors import SettingsError
from tasks.models.preprocessing import Preprocessing, preprocessing_of
from tests.worlds import square

SIZES = [(32, 32), (60, 20), (17, 90), (500, 375)]
ENDING = [v1.ToTensor(), v1.Normalize((0.5,) * 3, (0.5,) * 3)]


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(square("blue", seed)).resize(size)


def prepared(config: PreprocessCfg, augmentation: v1.Compose | None = None) -> Preprocessing:
    augmentation = augmentation or image_transform_v2(config, is_train=True)
    return preprocessing_of(augmentation, image_transform_v2(config, is_train=False))


CONFIGS = [
    PreprocessCfg(size=32),
    PreprocessCfg(size=(32, 32), interpolation="bilinear"),
    PreprocessCfg(size=(24, 40)),
    PreprocessCfg(size=32, resize_mode="squash"),
    PreprocessCfg(size=32, resize_mode="longest", fill_color=7),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_crop_and_normalisation_are_open_clips_own(
    config: PreprocessCfg, size: tuple[int, int]
) -> None:
    ours, image = prepared(config), picture(size)
    images = ours.crop(image)
    assert images.dtype == torch.uint8
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ours.normalisation)
    theirs = image_transform_v2(config, is_train=False)(image)
    assert torch.equal((images.float() / 255 - mean) / std, theirs)


def seeded(augment: Callable[[Image.Image], Tensor], image: Image.Image, seed: int) -> Tensor:
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    return augment(image)


@pytest.mark.parametrize("size", SIZES)
def test_default_augmentation_draws_in_v2_what_it_drew_in_v1(size: tuple[int, int]) -> None:
    """Same seed, same pixels: both ask torch's generator for the same numbers in the same order."""
    ours, image = prepared(PreprocessCfg(size=32)), picture(size)
    *steps, _to_tensor, _normalise = image_transform_v2(PreprocessCfg(size=32), True).transforms
    in_v1 = v1.Compose([*steps, v1.PILToTensor()])
    assert isinstance(ours.augment, v2.Compose)
    assert isinstance(ours.augment.transforms[0], v2.RandomResizedCrop)
    for seed in range(50):
        pixels = seeded(ours.augment, image, seed)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, seeded(in_v1, image, seed))


@pytest.mark.parametrize(
    "step",
    [
        v1.RandomResizedCrop(
            (20, 30), (0.1, 0.6), (0.5, 2.0), interpolation=v1.InterpolationMode.NEAREST
        ),
        v1.RandomHorizontalFlip(0.4),
        v1.RandomVerticalFlip(0.4),
        v1.RandomGrayscale(0.4),
        v1.ColorJitter(0.4, 0.3, 0.2, 0.1),
        v1.ColorJitter((0.5, 0.9), 0, (1.0, 2.0)),
    ],
    ids=str,
)
def test_torchvisions_steps_draw_in_v2_what_they_drew_in_v1(step: torch.nn.Module) -> None:
    ours = prepared(PreprocessCfg(size=32), v1.Compose([step, *ENDING]))
    assert isinstance(ours.augment.transforms[0], v2.Transform)
    in_v1 = v1.Compose([step, v1.PILToTensor()])
    image = picture((40, 50))
    drawn = [seeded(ours.augment, image, seed) for seed in range(40)]
    for seed, pixels in enumerate(drawn):
        assert torch.equal(pixels, seeded(in_v1, image, seed))
    assert any(not torch.equal(pixels, drawn[0]) for pixels in drawn)


def largest_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The statistic of Kolmogorov and Smirnov: how far two empirical distributions are apart."""
    values = np.concatenate([ours, theirs])
    shares = [
        np.searchsorted(np.sort(part), values, "right") / len(part) for part in (ours, theirs)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def test_open_clips_jitter_and_grey_keep_their_distribution() -> None:
    """They asked Python's generator whether to act, so equal seeds differ and statistics decide.

    For two samples of n = 1000 the gap exceeds 1.95 sqrt(2 / n) = 0.087 once in a thousand times;
    the seeds are fixed, so it is the same number every time.
    """
    augmentation = v1.Compose([color_jitter(0.4, 0.4, 0.4, 0.1, p=0.6), gray_scale(0.3), *ENDING])
    ours = prepared(PreprocessCfg(size=8), augmentation)
    kinds = [type(step) for step in ours.augment.transforms]
    assert kinds == [v2.RandomApply, v2.RandomGrayscale, v2.PILToTensor]
    in_v1 = v1.Compose([*augmentation.transforms[:-2], v1.PILToTensor()])
    image = Image.new("RGB", (8, 8), (180, 90, 60))
    drawn = [
        np.stack([seeded(augment, image, seed)[:, 0, 0].numpy() for seed in range(1000)])
        for augment in (ours.augment, in_v1)
    ]
    for channel in range(3):
        gap = largest_gap(*(colours[:, channel] for colours in drawn))
        assert gap < 0.087
    grey = [float((np.ptp(colours, axis=1) == 0).mean()) for colours in drawn]
    assert grey == pytest.approx([0.3, 0.3], abs=0.05)
    untouched = [float((colours == (180, 90, 60)).all(axis=1).mean()) for colours in drawn]
    assert untouched == pytest.approx([0.28, 0.28], abs=0.05)


def test_a_step_without_a_counterpart_is_kept() -> None:
    def invert(image: Image.Image) -> Image.Image:
        return image.point(lambda value: 255 - value)

    ours = prepared(PreprocessCfg(size=32), v1.Compose([invert, *ENDING]))
    assert ours.augment.transforms[0] is invert
    image = picture((32, 32))
    assert torch.equal(ours.augment(image), 255 - ours.crop(image))


def test_fingerprint_names_the_geometry_and_nothing_else() -> None:
    prints = [prepared(config).fingerprint for config in CONFIGS]
    others = [
        PreprocessCfg(size=64),
        PreprocessCfg(size=32, resize_mode="longest", fill_color=8),
    ]
    prints += [prepared(config).fingerprint for config in others]
    assert len(set(prints)) == len(prints)
    assert all(len(value) == 64 and int(value, 16) for value in prints)
    same = [
        PreprocessCfg(size=(32, 32)),
        PreprocessCfg(size=[32, 32]),
        PreprocessCfg(size=32, mean=(0.5,) * 3, std=(0.2,) * 3),
    ]
    assert {prepared(config).fingerprint for config in same} == {prints[0]}


def test_fingerprint_is_the_same_in_every_process() -> None:
    """A literal, because each run of the tests is another process.

    It changes when a step of open_clip or torchvision has another name or one more parameter;
    caches are then made again.
    """
    expected = "a006183fef4148754ec92dbb6b7912d223b887dfa7513cd62c7814e08ec7855e"
    assert prepared(PreprocessCfg(size=224)).fingerprint == expected


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [v1.Normalize((0.5,) * 3, (0.5,) * 3)],
        [v1.CenterCrop(32), v1.ToTensor()],
        [v1.PILToTensor(), v1.Normalize((0.5,) * 3, (0.5,) * 3)],
        [*ENDING, v1.RandomErasing()],
    ],
    ids=["nothing", "no-tensor", "not-normalised", "bytes", "erasing-behind"],
)
def test_a_pipeline_with_another_end_is_refused(steps: list[object]) -> None:
    usual = v1.Compose([v1.CenterCrop(32), *ENDING])
    for pipelines in ((v1.Compose(steps), usual), (usual, v1.Compose(steps))):
        with pytest.raises(SettingsError, match="not in ToTensor and Normalize"):
            preprocessing_of(*pipelines)


def test_a_preprocessing_without_a_name_is_refused() -> None:
    usual = v1.Compose([v1.CenterCrop(32), *ENDING])
    for step in (lambda image: image, v1.Lambda(lambda image: image)):
        with pytest.raises(SettingsError, match="no fingerprint can name"):
            preprocessing_of(usual, v1.Compose([step, *ENDING]))
