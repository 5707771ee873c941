"""Digests of files and folders: what decides an output is named by its content."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remembered_sha256(path: Path) -> str:
    """SHA-256 of a file, read once by this process as long as its size and times are the same.

    For large data sets, which a sequence opens again after each of its tasks.
    """
    known = path.stat()
    return _sha256_of(path, known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino)


@lru_cache(maxsize=1 << 18)
def _sha256_of(path: Path, *_state: int) -> str:
    return sha256_of_file(path)


def digest_of_files(root: Path, paths: Iterable[Path] | None = None) -> str:
    """SHA-256 over relative names and contents of files below `root` (default: all of them).

    Hidden files are left out: they belong to tools, not to the content.
    """
    digest = hashlib.sha256()
    for path in sorted(paths if paths is not None else root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            digest.update(f"{relative.as_posix()}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
