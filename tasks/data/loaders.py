"""Seeded batches: the same seed gives the same images, in the same order, augmented alike.

The same also whoever decodes them: this process or workers beside it, one rank of a distributed
run or another, from the start or resumed in the middle.
"""

import os
import random
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkContext, ForkProcess

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gift_core.errors import GiftError
from tasks.data.sources import Split

ImageToBytes = Callable[[Image.Image], Tensor]
"""PIL picture in RGB to uint8 (3, H, W)."""

Draw = tuple[int, int]
"""The number of a draw, counted over all rows of all batches, and the index of its image."""

PREFETCHED_BATCHES = 2
"""Batches that each worker keeps ready; they lie in shared memory (/dev/shm)."""


def index_batches(
    num_items: int, batch_size: int, seed: int, start: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Endless full batches of indices, int64 (B,): one permutation after another, cut into pieces.

    A batch may cross from one permutation into the next, so that every batch is full and no item
    is seen less often than another by more than once. The first `start` batches are left out.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    num_permutations, num_items_more = divmod(start * batch_size, num_items)
    for _ in range(num_permutations):
        generator.permutation(num_items)
    waiting = generator.permutation(num_items)[num_items_more:]
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, generator.permutation(num_items)])
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        yield batch


def augmented_batches(
    split: Split,
    augment: ImageToBytes,
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    rows: slice | None = None,
    workers: int = 0,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Endless batches of a task: uint8 (b, 3, H, W) and int64 labels (B,).

    The first `start` batches are left out, undecoded. `rows` are those rows of each batch whose
    images are decoded (a rank's share); labels are always the whole batch's. With `workers` that
    many processes decode ahead of the caller. None of the three changes a picture: every draw has
    its own seed, for torch's generator and Python's, and the caller's own are left alone.

    Raises DataError naming an image that cannot be read, when its batch is reached. The workers
    stop when the generator is closed or no longer referred to.
    """
    dataset = _AugmentedImages(split, augment, seed)

    def draws() -> Iterator[list[Draw]]:
        batches = index_batches(len(split), batch_size, seed, start)
        for number, indices in enumerate(batches, start):
            numbered = list(enumerate(indices.tolist(), number * batch_size))
            yield numbered if rows is None else numbered[rows]

    images = _from_workers(dataset, draws(), workers) if workers else _from_here(dataset, draws())
    with closing(images):
        batches = index_batches(len(split), batch_size, seed, start)
        for indices, images_bCHW in zip(batches, images, strict=False):
            yield images_bCHW, torch.from_numpy(split.labels_N[indices])


@dataclass(frozen=True)
class _AugmentedImages(Dataset[Tensor]):
    """A split as the random pictures drawn from it."""

    split: Split
    augment: ImageToBytes
    seed: int

    def draw(self, draws: Sequence[Draw]) -> list[Tensor]:
        """Draw pictures, each from its own seed; DataError when one cannot be read."""
        images = []
        with _own_randomness():
            for number, index in draws:
                # Not torch.manual_seed: for every call it also formats a stack for CUDA's sake.
                torch.default_generator.manual_seed((self.seed << 40) + number)
                # For augmentations that do not draw from torch (timm's, open_clip's jitter).
                random.seed((self.seed << 40) + number)
                images.append(self.augment(self.split.image(index)))
        return images

    def __getitems__(self, draws: Sequence[Draw]) -> list[Tensor] | GiftError:
        """Draw a batch in a worker, as DataLoader asks for it.

        An error is handed over as a value: raised, it would reach the user with the traceback of
        two processes in its message.
        """
        try:
            return self.draw(draws)
        except GiftError as error:
            return error


@contextmanager
def _own_randomness() -> Iterator[None]:
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)


def _from_here(
    dataset: _AugmentedImages, draws: Iterator[list[Draw]]
) -> Generator[Tensor, None, None]:
    for batch in draws:
        yield torch.stack(dataset.draw(batch))


def _from_workers(
    dataset: _AugmentedImages, draws: Iterator[list[Draw]], workers: int
) -> Generator[Tensor, None, None]:
    with warnings.catch_warnings():
        # The number of workers was decided by who asked for it; the fork is explained below.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        loader = DataLoader(
            dataset,
            batch_sampler=draws,
            num_workers=workers,
            collate_fn=_stacked,
            prefetch_factor=PREFETCHED_BATCHES,
            # A fork starts in milliseconds, where a fresh interpreter imports torch and open_clip
            # again for seconds. What makes forks dangerous, CUDA and locks that other threads
            # hold, a worker does not use: it reads files and computes on one thread.
            multiprocessing_context=_ForkContext(),
            # Else DataLoader draws a seed from the caller's generator.
            generator=torch.Generator(),
        )
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, GiftError):
                raise batch
            yield batch
    finally:
        # The workers stop with the last reference to the iterator. A traceback must not hold it.
        del batches


def _stacked(images: list[Tensor] | GiftError) -> Tensor | GiftError:
    """In a worker default_collate stacks right into shared memory."""
    return images if isinstance(images, GiftError) else default_collate(images)


class _Worker(ForkProcess):
    """A process in a group of its own, so that signals to the caller's group do not reach it.

    Those (Ctrl-C, torchrun's SIGTERM) are for the training process, which may want to finish its
    step; a worker ends with it. Both sides change the group: then neither the first batch nor the
    worker's first work comes before the change, whoever of the two is slow.
    """

    def start(self) -> None:
        """See multiprocessing.Process."""
        super().start()
        with suppress(ProcessLookupError):  # it is over already, and has been waited for
            os.setpgid(self.pid or 0, self.pid or 0)

    def run(self) -> None:
        """See multiprocessing.Process."""
        os.setpgid(0, 0)
        super().run()


class _ForkContext(ForkContext):
    """Where DataLoader takes its workers from."""

    Process = _Worker
