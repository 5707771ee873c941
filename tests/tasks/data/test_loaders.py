"""Seeded batches: full, fair, and the same for the same seed."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor

from tasks.data.loaders import augmented_batches, cropped_batches, index_batches
from tasks.data.sources import ParquetData, Split


def test_every_item_once_before_any_twice() -> None:
    drawn = np.concatenate(list(islice(index_batches(10, 4, seed=3), 5)))
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 9))
def test_batches_are_full_and_fair(num_items: int, batch_size: int, seed: int) -> None:
    batches = list(islice(index_batches(num_items, batch_size, seed), 4))
    assert all(len(batch) == batch_size for batch in batches)
    counts = np.bincount(np.concatenate(batches), minlength=num_items)
    assert counts.max() - counts.min() <= 1


def random_crop(image: Image.Image) -> Tensor:
    return pil_to_tensor(RandomResizedCrop(32, scale=(0.5, 1.0))(image))


def open_train(folder: Path) -> Split:
    return ParquetData(path=str(folder / "warm")).open_split("train")


def test_same_seed_same_augmented_pictures_whatever_was_drawn_before(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    first = list(islice(augmented_batches(split, random_crop, 4, seed=5), 3))
    torch.manual_seed(99)
    again = list(islice(augmented_batches(split, random_crop, 4, seed=5), 3))
    other = next(augmented_batches(split, random_crop, 4, seed=6))
    for (images, labels), (images_again, labels_again) in zip(first, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)
    assert not torch.equal(first[0][0], other[0])


def test_augmentation_leaves_the_callers_random_state_alone(tiny_data: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    next(augmented_batches(open_train(tiny_data), random_crop, 4, seed=5))
    assert torch.equal(torch.rand(3), expected)


def test_cropped_batches_hold_every_image_once_in_order(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    batches = list(cropped_batches(split, pil_to_tensor, 4))
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == split.labels_N.tolist()
    assert torch.equal(batches[2][0][1], pil_to_tensor(split.image(9)))
