"""Seeded batches: the same seed gives the same images, in the same order, augmented alike."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tasks.data.sources import Split

ImageToBytes = Callable[[Image.Image], Tensor]


def index_batches(num_items: int, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless full batches of indices: one permutation after another, cut into pieces.

    A batch may cross from one permutation into the next, so that every batch is full and no item
    is seen less often than another by more than once.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, generator.permutation(num_items)])
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        yield batch


def augmented_batches(
    split: Split, augment: ImageToBytes, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of a task: uint8 (B, 3, H, W) and int64 labels (B,).

    Every draw has its own seed, so an image's augmentation does not depend on who drew before.
    """
    num_drawn = 0
    for indices in index_batches(len(split), batch_size, seed):
        images = []
        with torch.random.fork_rng(devices=[]):
            for index in indices:
                # Not torch.manual_seed: for every call it also formats a stack for CUDA's sake.
                torch.default_generator.manual_seed((seed << 40) + num_drawn)
                images.append(augment(split.image(int(index))))
                num_drawn += 1
        yield torch.stack(images), torch.from_numpy(split.labels_N[indices])


def cropped_images(images: Sequence[Image.Image], crop: ImageToBytes) -> Tensor:
    """Deterministic preprocessing of images: uint8 (N, 3, H, W)."""
    return torch.stack([crop(image) for image in images])


def cropped_batches(
    split: Split, crop: ImageToBytes, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A split once, in order: uint8 (B, 3, H, W) and int64 labels (B,), the last batch shorter."""
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        images = cropped_images([split.image(index) for index in range(start, stop)], crop)
        yield images, torch.from_numpy(split.labels_N[start:stop])
