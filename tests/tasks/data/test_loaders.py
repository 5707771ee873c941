"""Seeded batches: full, fair, and the same for the same seed whoever decodes them."""

import gc
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor

from gift_core.errors import DataError
from tasks.data import loaders
from tasks.data.loaders import augmented_batches, index_batches
from tasks.data.sources import ImageBytes, ParquetData, Split
from tests.worlds import png, square, write_split

Batches = list[tuple[Tensor, Tensor]]
BATCH_SIZE = 4


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


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 9), st.integers(0, 20))
def test_a_later_start_is_the_same_sequence(
    num_items: int, batch_size: int, seed: int, start: int
) -> None:
    by_hand = list(islice(index_batches(num_items, batch_size, seed), start, start + 3))
    started = list(islice(index_batches(num_items, batch_size, seed, start), 3))
    np.testing.assert_array_equal(started, by_hand)


def random_crop(image: Image.Image) -> Tensor:
    return pil_to_tensor(RandomResizedCrop(32, scale=(0.5, 1.0))(image))


def random_mirror(image: Image.Image) -> Tensor:
    """As timm and open_clip's own steps do: Python's generator is asked, not torch's."""
    mirrored = random.random() < 0.5  # noqa: S311
    return pil_to_tensor(ImageOps.mirror(image) if mirrored else image)


def open_train(folder: Path) -> Split:
    return ParquetData(path=str(folder / "warm")).open_split("train")


def assert_equal(batches: Batches, expected: Batches) -> None:
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


def test_same_seed_same_augmented_pictures_whatever_was_drawn_before(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    first = list(islice(augmented_batches(split, random_crop, 4, seed=5), 3))
    torch.manual_seed(99)
    again = list(islice(augmented_batches(split, random_crop, 4, seed=5), 3))
    other = next(augmented_batches(split, random_crop, 4, seed=6))
    assert_equal(again, first)
    assert not torch.equal(first[0][0], other[0])


def test_a_picture_depends_on_its_seed_and_the_number_of_its_draw_alone(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    (indices,) = islice(index_batches(len(split), BATCH_SIZE, 5, start=2), 1)
    images, labels = next(augmented_batches(split, random_crop, BATCH_SIZE, 5, start=2))
    assert labels.tolist() == split.labels_N[indices].tolist()
    torch.manual_seed((5 << 40) + 2 * BATCH_SIZE + 3)
    assert torch.equal(images[3], random_crop(split.image(int(indices[3]))))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("rows", [None, slice(0, 2), slice(2, 4), slice(1, None, 2)])
def test_start_rows_and_workers_change_no_picture(
    tiny_data: Path, workers: int, start: int, rows: slice | None
) -> None:
    split = open_train(tiny_data)
    whole = list(islice(augmented_batches(split, random_crop, BATCH_SIZE, 5), 6))
    expected = [(images[rows or slice(None)], labels) for images, labels in whole[start:]]
    batches = augmented_batches(
        split, random_crop, BATCH_SIZE, 5, start=start, rows=rows, workers=workers
    )
    with closing(batches):
        assert_equal(list(islice(batches, 6 - start)), expected)


def test_augmentations_that_draw_from_pythons_generator_are_seeded_too(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    here = list(islice(augmented_batches(split, random_mirror, BATCH_SIZE, 5), 4))
    with closing(
        augmented_batches(split, random_mirror, BATCH_SIZE, 5, start=1, workers=2)
    ) as batches:
        assert_equal(list(islice(batches, 3)), here[1:])


@pytest.mark.parametrize("workers", [0, 1])
def test_augmentation_leaves_the_callers_random_state_alone(tiny_data: Path, workers: int) -> None:
    expected = torch.get_rng_state(), random.getstate()
    split = open_train(tiny_data)
    with closing(augmented_batches(split, random_mirror, 4, seed=5, workers=workers)) as batches:
        next(batches)
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert is_a_few_draws_on(random.getstate(), expected[1])


def is_a_few_draws_on(state: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """Whether only draws lie between: threads of Prefect's make some, a seed set goes elsewhere."""
    follower = random.Random()  # noqa: S311 - it follows
    follower.setstate(before)
    for _ in range(2000):
        if follower.getstate() == state:
            return True
        follower.getrandbits(32)
    return False


def test_a_seed_that_was_set_is_no_few_draws_on() -> None:
    dice = random.Random(1)  # noqa: S311 - dice
    before = dice.getstate()
    assert is_a_few_draws_on(before, before)
    dice.random()
    assert is_a_few_draws_on(dice.getstate(), before)
    dice.seed(5)
    assert not is_a_few_draws_on(dice.getstate(), before)


@dataclass
class CountedImages:
    images: ImageBytes
    indices: list[int] = field(default_factory=list)

    def read(self, index: int) -> tuple[bytes, str]:
        self.indices.append(index)
        return self.images.read(index)


def test_skipped_batches_and_other_ranks_rows_are_not_decoded(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    counted = CountedImages(split.images)
    split = Split(split.labels_N, split.class_names, counted, split.digest)
    next(augmented_batches(split, random_crop, BATCH_SIZE, 5, start=3, rows=slice(1, 3)))
    (indices,) = islice(index_batches(len(split), BATCH_SIZE, 5, start=3), 1)
    assert counted.indices == indices[1:3].tolist()


@pytest.fixture
def torn(tmp_path: Path) -> Split:
    """Ten pictures, the one that seed 5 draws tenth torn."""
    (indices,) = islice(index_batches(10, 10, seed=5), 1)
    pictures = [png(square("red", index)) for index in range(10)]
    pictures[indices[9]] = pictures[indices[9]][:200]
    write_split(tmp_path / "train.parquet", pictures, [0] * 10, ["red"])
    return ParquetData(path=str(tmp_path)).open_split("train")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_torn_picture_is_one_sentence_when_its_batch_is_reached(
    torn: Split, workers: int
) -> None:
    batches = augmented_batches(torn, random_crop, BATCH_SIZE, 5, workers=workers)
    next(batches)
    next(batches)
    with pytest.raises(DataError) as caught:
        next(batches)
    assert "train.parquet: row" in str(caught.value)
    assert "a torn picture" in str(caught.value)
    assert "\n" not in str(caught.value)
    # The error, and with it the frames it passed, is still held here.
    assert num_worker_processes() == 0


def num_worker_processes() -> int:
    """Children of this process that multiprocessing started, as the system sees them."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    alive = {pid for path in children for pid in path.read_text().split()}
    return len(alive & {str(child.pid) for child in multiprocessing.active_children()})


def drawn_from(split: Split, workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
    batches = augmented_batches(split, random_crop, BATCH_SIZE, 5, workers=workers)
    next(batches)
    assert num_worker_processes() == workers
    return batches


def test_workers_stop_when_the_generator_is_closed_or_forgotten(tiny_data: Path) -> None:
    split = open_train(tiny_data)
    with closing(drawn_from(split, 2)):
        pass
    assert num_worker_processes() == 0
    batches = drawn_from(split, 2)
    del batches
    gc.collect()
    assert num_worker_processes() == 0


def draw_on_when_told_to_stop(split: Split) -> None:
    """A training process that finishes its step: what torchrun sends goes to the whole group."""
    os.setsid()
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: heard.append(number))
    with closing(drawn_from(split, 2)) as batches:
        os.killpg(0, signal.SIGTERM)
        os.killpg(0, signal.SIGINT)
        list(islice(batches, 8))
    os._exit(0 if sorted(heard) == [signal.SIGINT, signal.SIGTERM] else 1)


def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second of them, which has not begun when the first has a batch."""
    begin = loaders._Worker.run

    def late(worker: ForkProcess) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(int(worker.name.rpartition(":")[2]) - 1)
        begin(worker)

    monkeypatch.setattr(loaders._Worker, "run", late)
    process = multiprocessing.get_context("fork").Process(
        target=draw_on_when_told_to_stop, args=(open_train(tiny_data),)
    )
    process.start()
    process.join(30)
    assert process.exitcode == 0


def slow_crop(image: Image.Image) -> Tensor:
    time.sleep(0.05)
    return random_crop(image)


def test_workers_decode_while_the_caller_is_busy(tiny_data: Path) -> None:
    """A batch takes a worker 0.2 s; two lie ready for each worker after a pause of 1.5 s."""
    split = open_train(tiny_data)
    with closing(augmented_batches(split, slow_crop, BATCH_SIZE, 5, workers=1)) as batches:
        next(batches)
        time.sleep(1.5)
        began = time.monotonic()
        next(batches)
        next(batches)
        assert time.monotonic() - began < 0.3
