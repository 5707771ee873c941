"""MNIST and CIFAR-100 as they are published: pixels in one file, read where they lie.

CIFAR-100 is read in its binary version. The Python version is a pickle, which is never read.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gift_core.errors import DataError
from tasks.images import encode_png

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class RawListing:
    """The pictures of a split as uint8 pixels, (N, H, W) or (N, H, W, 3), mapped from `file`."""

    file: Path
    pixels: Pixels
    labels: list[int]
    class_names: list[str]


RawReader = Callable[[Path, str], RawListing]


@dataclass(frozen=True)
class RawImages:
    """Each picture as a PNG, made when it is asked for."""

    file: Path
    pixels: Pixels

    def read(self, index: int) -> tuple[bytes, str]:
        """PNG bytes, and the file with the picture's number."""
        return encode_png(np.ascontiguousarray(self.pixels[index])), f"{self.file}: {index}"


def mnist(root: Path, part: str) -> RawListing:
    """The four files of MNIST in IDX form, unpacked: `part` is train or t10k."""
    from torchvision.datasets import MNIST

    folder = root / "MNIST" / "raw"
    images = folder / f"{part}-images-idx3-ubyte"
    pixels = _idx(images, 3)
    labels = _idx(folder / f"{part}-labels-idx1-ubyte", 1)
    if len(labels) != len(pixels):
        raise DataError(f"{images}: {len(pixels)} pictures for {len(labels)} labels; get both anew")
    return RawListing(images, pixels, labels.tolist(), list(MNIST.classes))


def _idx(file: Path, num_axes: int) -> Pixels:
    """An IDX file of bytes: 0, 0, 8, the number of axes, their lengths, the values."""
    start = 4 + 4 * num_axes
    with file.open("rb") as stream:
        head = stream.read(start)
    if len(head) < start or head[:4] != bytes([0, 0, 8, num_axes]):
        raise DataError(f"{file}: not an IDX file of bytes with {num_axes} axes; unpack it anew")
    shape = tuple(int(length) for length in np.frombuffer(head[4:], dtype=">u4"))
    promised, found = start + int(np.prod(shape, dtype=object)), file.stat().st_size
    if found != promised:
        raise DataError(f"{file}: {found:,} bytes, and its head promises {promised:,}; get it anew")
    return np.memmap(file, dtype=np.uint8, mode="r", offset=start, shape=shape)


_CIFAR_RECORD = 2 + 3 * 32 * 32
"""A coarse label, a fine label, and the red, green and blue planes, row by row."""


def cifar100(root: Path, part: str) -> RawListing:
    """The binary version of CIFAR-100, with its fine labels: `part` is train or test."""
    folder = root / "cifar-100-binary"
    if not os.path.isdir(folder) and os.path.isdir(root / "cifar-100-python"):
        raise DataError(
            f"{root / 'cifar-100-python'} is a pickle, which is never read; unpack "
            f"cifar-100-binary.tar.gz in {root}"
        )
    file = folder / f"{part}.bin"
    records, rest = divmod(file.stat().st_size, _CIFAR_RECORD)
    if rest or not records:
        raise DataError(f"{file}: not whole pictures of {_CIFAR_RECORD:,} bytes; unpack it anew")
    names = (folder / "fine_label_names.txt").read_text("utf-8").split()
    rows = np.memmap(file, dtype=np.uint8, mode="r", shape=(records, _CIFAR_RECORD))
    planes = rows[:, 2:].reshape(records, 3, 32, 32)
    return RawListing(file, planes.transpose(0, 2, 3, 1), rows[:, 1].tolist(), names)
