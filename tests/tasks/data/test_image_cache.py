"""Preprocessed images kept on disk: the same bytes as without, made once, made again when torn."""

import io
import resource
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from gift_core.errors import DataError, StoreError
from tasks.data.image_cache import WAITING_PER_THREAD, Pixels, cached_images
from tasks.data.workers import num_cpus
from tasks.images import decode_rgb
from tests.worlds import png, square

KEY = "0123456789abcdef"
NUM_IMAGES = 12
PICTURES = [png(square("red", index)) for index in range(NUM_IMAGES)]
EXPECTED = np.stack([pil_to_tensor(Image.fromarray(square("red", n))) for n in range(NUM_IMAGES)])


def read(index: int) -> Image.Image:
    return decode_rgb(PICTURES[index], f"picture {index}")


def never_read(index: int) -> Image.Image:
    raise AssertionError(f"picture {index} was read")


def cached(folder: Path, read: Callable[[int], Image.Image] = read) -> Pixels:
    return cached_images(folder, KEY, NUM_IMAGES, read, pil_to_tensor)


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def test_images_are_kept_as_cropped_in_numpys_own_format(tmp_path: Path) -> None:
    images = cached(tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / f"{KEY}.npy"
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, EXPECTED)
    assert path.read_bytes() == npy(EXPECTED)
    assert list(path.parent.iterdir()) == [path]


def test_a_second_call_reads_nothing(tmp_path: Path) -> None:
    cached(tmp_path)
    np.testing.assert_array_equal(cached(tmp_path, never_read), EXPECTED)


def test_the_cache_may_be_deleted_while_it_is_open(tmp_path: Path) -> None:
    images = cached(tmp_path)
    (tmp_path / f"{KEY}.npy").unlink()
    np.testing.assert_array_equal(images, EXPECTED)
    np.testing.assert_array_equal(cached(tmp_path), EXPECTED)


WHOLE = npy(EXPECTED)
HEADER_BYTES = len(WHOLE) - EXPECTED.nbytes


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"not numpy",
        WHOLE[:100],
        WHOLE[:-1],
        WHOLE + b"\0",
        npy(EXPECTED[:-1]),
        npy(EXPECTED[:, :2]),
        npy(EXPECTED[..., 0]),
        npy(EXPECTED.astype(np.float32)),
        npy(EXPECTED.astype(np.int8)),
        npy(np.asfortranarray(EXPECTED)),
        npy(np.array([{"an": "object"}], dtype=object), allow_pickle=True),
    ],
    ids=[
        "empty", "garbage", "header-cut", "torn", "longer", "fewer", "two-channels", "flat",
        "floats", "signed", "fortran", "pickled",
    ],
)  # fmt: skip
def test_a_torn_or_alien_file_is_made_again(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / f"{KEY}.npy"
    path.write_bytes(found)
    np.testing.assert_array_equal(cached(tmp_path), EXPECTED)
    assert path.read_bytes() == WHOLE


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, HEADER_BYTES - 1), st.binary(min_size=1, max_size=3))
def test_no_damage_to_the_header_is_another_error(tmp_path: Path, place: int, noise: bytes) -> None:
    damaged = (WHOLE[:place] + noise + WHOLE[place + len(noise) :])[:HEADER_BYTES]
    (tmp_path / f"{KEY}.npy").write_bytes(damaged + WHOLE[HEADER_BYTES:])
    np.testing.assert_array_equal(cached(tmp_path), EXPECTED)


def test_makers_at_once_all_get_the_whole(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=20)

    def read_together(index: int) -> Image.Image:
        if index == 0:
            together.wait()
        return read(index)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: cached(tmp_path, read_together), range(4)))
    for images in made:
        np.testing.assert_array_equal(images, EXPECTED)
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.npy"]


@pytest.mark.parametrize("broken", [0, 7, NUM_IMAGES - 1])
def test_a_torn_picture_passes_through_and_leaves_nothing(tmp_path: Path, broken: int) -> None:
    def read_broken(index: int) -> Image.Image:
        data = PICTURES[index]
        return decode_rgb(data[:200] if index == broken else data, f"picture {index}")

    with pytest.raises(DataError, match=f"picture {broken}: a torn picture"):
        cached(tmp_path, read_broken)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Stands in for a full disk: a write beyond it is refused with OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    with (
        largest_file(EXPECTED.nbytes // 2),
        pytest.raises(StoreError, match="cannot keep preprocessed images in") as caught,
    ):
        cached(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot keep preprocessed images in"):
        cached(tmp_path / "file")


def test_progress_counts_every_image_made_or_found(tmp_path: Path) -> None:
    for _ in range(2):
        told: list[int] = []
        cached_images(tmp_path, KEY, NUM_IMAGES, read, pil_to_tensor, told.append)
        assert sum(told) == NUM_IMAGES


def test_few_pictures_are_in_memory_at_a_time(tmp_path: Path) -> None:
    num_read, num_kept, most = 0, 0, 0

    def read_counted(index: int) -> Image.Image:
        nonlocal num_read, most
        num_read += 1
        most = max(most, num_read - num_kept)
        return read(index % NUM_IMAGES)

    def kept(count: int) -> None:
        nonlocal num_kept
        num_kept += count

    cached_images(tmp_path, KEY, 200, read_counted, pil_to_tensor, kept)
    assert num_kept == num_read == 200
    assert most <= WAITING_PER_THREAD * num_cpus() + 1


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    before = list(warnings.filters)
    cached_images(tmp_path, KEY, 200, lambda index: read(index % NUM_IMAGES), pil_to_tensor)
    assert warnings.filters == before


@pytest.mark.parametrize("key", ["", "../up", "ABC", "xyz", "ab/cd", "ab\n"])
def test_a_key_is_a_hex_digest(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a hex digest"):
        cached_images(tmp_path, key, NUM_IMAGES, read, pil_to_tensor)
