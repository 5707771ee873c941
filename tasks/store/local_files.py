"""Writing files so that a reader sees the old content or the new one, never a part of it.

The temporary file lies in the folder of its target (a rename across devices is a copy), and both
the file and its folder are flushed to the disk, so that a power cut cannot undo an answer.
"""

import errno
import fcntl
import hashlib
import os
import random
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
LOCK_SECONDS = 60
"""A lock is held for milliseconds; who waits longer is told so."""


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


def version_of(data: bytes) -> str:
    """The version token of a file's content."""
    return hashlib.sha256(data).hexdigest()


def swap_atomically(path: Path, data: bytes, version: str | None) -> bool:
    """Replace the content of that version (None: no file) in one step; False when it is another.

    Raises OSError, also when the lock is not to be had within LOCK_SECONDS.
    """
    with locked(path):
        if version is None:
            return create_atomically(path, data)
        try:
            found = version_of(path.read_bytes())
        except FileNotFoundError:
            return False
        if found != version:
            return False
        write_atomically(path, [data])
        return True


def lock_beside(path: Path) -> Path:
    """The lock file of `path`. It stays: removing it would let two writers hold two locks."""
    return path.parent / f"{TEMPORARY_PREFIX}lock-{path.name}"


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of `path`, which a dead process gives back by itself; OSError when it lasts."""
    make_folder(path.parent)
    descriptor = os.open(lock_beside(path), os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    words = f"another process has held its lock for {seconds:.0f} s"
                    raise OSError(errno.EAGAIN, words) from None
                time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - no secret
        yield
    finally:
        os.close(descriptor)


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
