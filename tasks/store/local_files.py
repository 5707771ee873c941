"""Writing files so that a reader sees the old content or the new one, never a part of it.

The temporary file lies in the folder of its target (a rename across devices is a copy), and both
the file and its folder are flushed to the disk, so that a power cut cannot undo an answer.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Name a temporary file in the folder of `path`; it is removed afterwards."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_flushed(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file and flush it to the disk; OSError when it exists or there is no room."""
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace `path` in one step, making its folder when missing; OSError as the system says.

    Nothing is published when `chunks` raises.
    """
    make_folder(path.parent)
    with temporary_beside(path) as temporary:
        write_flushed(temporary, chunks)
        temporary.replace(path)
    flush_folder(path.parent)


def create_atomically(path: Path, data: bytes) -> bool:
    """Create `path` with its whole content in one step; False when it exists already.

    Raises OSError, also where the file system has no hard links.
    """
    make_folder(path.parent)
    with temporary_beside(path) as temporary:
        write_flushed(temporary, [data])
        try:
            # A link appears with the finished content or not at all. A rename would replace.
            os.link(temporary, path)
        except FileExistsError:
            return False
    flush_folder(path.parent)
    return True


def make_folder(path: Path) -> None:
    """Make a folder with its parents, each flushed into the folder above; OSError otherwise."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to the disk; OSError when it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_chunks(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file piece by piece; OSError when it cannot be read."""
    with path.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            yield chunk
