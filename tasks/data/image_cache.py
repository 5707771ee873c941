"""Deterministic preprocessing done once: bytes of a split in one file, mapped into memory.

The cache is local scratch: nothing is lost when its folder is deleted, at any time.
"""

import io
import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from gift_core.errors import StoreError
from tasks.data.loaders import ImageToBytes
from tasks.data.workers import num_cpus
from tasks.store.local_files import write_atomically
from tasks.store.objects import explained

Pixels = NDArray[np.uint8]

WAITING_PER_THREAD = 4
"""Pictures that a thread may be ahead of the file: memory stays small, and no thread idles."""


def cached_images(
    folder: Path,
    key: str,
    num_images: int,
    read: Callable[[int], Image.Image],
    crop: ImageToBytes,
    progress: Callable[[int], None] | None = None,
) -> Pixels:
    """Images 0 to num_images - 1 as `crop` gives them: uint8 (N, 3, H, W), read-only, from disk.

    `key` is a hex digest of whatever decides the content (the data's digest, the fingerprint of
    the preprocessing). folder/KEY.npy, numpy's own format, is used when it is whole, and else
    made: decoded in threads, flushed, renamed into place. Processes that make it at once all
    write the same, and the last one's stays. `progress` is told how many images are done more.

    The file may be deleted at any time; an array that is open keeps what it shows.

    Raises what `read` raises, and StoreError naming the folder when it cannot hold the file (a
    full disk); both leave nothing behind. `num_images` is at least 1.
    """
    if not re.fullmatch("[0-9a-f]+", key):
        raise ValueError(f"{key!r} is not a hex digest")
    path = folder / f"{key}.npy"
    if (found := _whole(path, num_images)) is not None:
        if progress is not None:
            progress(num_images)
        return found

    def pixels(index: int) -> Pixels:
        return crop(read(index)).numpy()

    with (
        closing(_in_threads(pixels, num_images)) as images,
        explained("keep preprocessed images in", str(folder)),
    ):
        write_atomically(path, _npy_chunks(num_images, images, progress))
    if (made := _whole(path, num_images)) is None:
        raise StoreError(f"{path}: cannot be read back; check the disk, or use another folder")
    return made


def _whole(path: Path, num_images: int) -> Pixels | None:
    """Map the file; None when it is missing, torn or something else."""
    try:
        images = npy.open_memmap(path, mode="r")
        size = images.offset + images.nbytes
        expected = images.dtype == np.uint8 and images.shape[:2] == (num_images, 3)
        ordered = images.ndim == 4 and images.flags.c_contiguous
        return images if expected and ordered and path.stat().st_size == size else None
    # numpy's parser raises many kinds, and whatever is wrong, the answer is to make it again.
    except Exception:
        return None


def _npy_chunks(
    num_images: int, images: Iterator[Pixels], progress: Callable[[int], None] | None
) -> Iterator[bytes]:
    """Give a .npy file in pieces.

    Not written through a map: on a full disk a write raises, but touching a mapped page kills.
    """
    first = next(images)
    header = io.BytesIO()
    shape = (num_images, *first.shape)
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for image in chain([first], images):
        yield image.tobytes()
        if progress is not None:
            progress(1)


def _in_threads(make: Callable[[int], Pixels], num_images: int) -> Generator[Pixels, None, None]:
    """Make every image in order, a few at a time; PIL decodes and resizes without the GIL."""
    threads = num_cpus()
    waiting: deque[Future[Pixels]] = deque()
    # decode_rgb sets warning filters for a moment, and threads put them back in the wrong order.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for index in range(num_images):
                waiting.append(pool.submit(make, index))
                if len(waiting) >= WAITING_PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
