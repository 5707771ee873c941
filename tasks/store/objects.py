"""The family of stores: a folder or a bucket, holding objects that appear whole or not at all.

    ObjectStore          what every stage may ask of a store
    |-- FolderStore      a folder of a local or shared file system
    `-- S3Store          a prefix of a bucket behind any S3 endpoint (tasks/store/s3.py)

A path is relative to the store's root, in posix form. Every failure is a StoreError.
"""

import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from gift_core.errors import StoreError
from tasks.store.failures import altered, explained, not_exclusive, not_swapping
from tasks.store.leftovers import Leftover, temporary_files
from tasks.store.local_files import (
    TEMPORARY_PREFIX,
    create_atomically,
    lock_beside,
    locked,
    read_chunks,
    swap_atomically,
    version_of,
    write_atomically,
)

CHUNK_BYTES = 8 * 2**20
_PART = re.compile(r"[A-Za-z0-9._+=@,~ -]+")


def checked_path(path: str) -> str:
    """Return the path; StoreError when it could leave the store or mean two things.

    Plain ASCII only: a question mark or a star means something to one store or another.
    """
    for part in path.split("/"):
        reserved = part in {".", ".."} or part.startswith(TEMPORARY_PREFIX)
        if reserved or not _PART.fullmatch(part):
            raise StoreError(
                f"{path!r} is not a path of a store: give parts of letters, digits and ._+=@,~- "
                "joined by single slashes, without a leading slash and without '..'"
            )
    return path


class ObjectStore(ABC):
    """Immutable objects below one root, and a few views that are replaced whole.

    Every method raises StoreError when the store cannot be reached or a path is refused.
    """

    url: str
    """What `open_store` was given, in full: it opens the same store again."""

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """Read the whole object; StoreError when it is missing."""

    @abstractmethod
    def read_chunks(self, path: str) -> Iterator[bytes]:
        """Yield the object piece by piece; StoreError when it is missing or ends early."""

    @abstractmethod
    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """Read a part of the object, shorter where it ends; StoreError when it is missing."""

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object in one step; False when there is one, which is then left alone.

        False may also be the echo of this call's own first try, when the answer to it was lost:
        read the object to learn whose it is.
        """

    @abstractmethod
    def replace_bytes(self, path: str, data: bytes) -> None:
        """Put a view (a report, a run record) in place of the old one, in one step."""

    @abstractmethod
    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        """Read the whole object with a token of its version; None when there is no such object.

        Equal bytes may have equal tokens: what is swapped must hold something of its own each time.
        """

    @abstractmethod
    def compare_and_swap(self, path: str, data: bytes, version: str | None) -> bool:
        """Replace the version that was read (None: nothing) in one step; False when it is another.

        False, and a StoreError too, may hide the success of this call's own first try, when the
        answer to it was lost: read the object again to learn whose it is.
        """

    @abstractmethod
    def modified(self, path: str) -> float | None:
        """Tell when the object was written, in seconds since 1970 by the store's own clock.

        None when there is no such object.
        """

    @abstractmethod
    def upload(self, path: str, source: Path) -> None:
        """Put a file into the store in one step, whatever was there."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Tell the object's size in bytes; None when there is no such object."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """List the sorted paths of all objects below the folder `prefix`; "" is the root."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove the object; nothing happens when there is none."""

    @abstractmethod
    def check(self) -> None:
        """StoreError unless the store answers, can be written and honours its conditions."""

    @abstractmethod
    def leftovers(self) -> Sequence[Leftover]:
        """List what killed writers left and no reader sees."""

    @abstractmethod
    def discard(self, leftover: Leftover) -> None:
        """Remove one of them; nothing happens when it is gone."""

    def impatient(self) -> "ObjectStore":
        """The same store for a person who waits: what fails is told in seconds, not retried."""
        return self

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        return self.size(path) is not None

    def put_file(self, path: str, source: Path) -> None:
        """Put an immutable object: one of the same size counts as the same and is left alone."""
        if self.size(path) != source.stat().st_size:
            self.upload(path, source)

    def fetch(self, path: str, destination: Path, sha256: str | None = None) -> None:
        """Download to a temporary name, flush, rename; StoreError when the digest is another."""
        with explained("write to", str(destination)):
            write_atomically(destination, self._verified_chunks(path, sha256))

    def _verified_chunks(self, path: str, sha256: str | None) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in self.read_chunks(path):
            digest.update(chunk)
            yield chunk
        if sha256 is not None and digest.hexdigest() != sha256:
            raise altered(f"{self.url}/{path}", sha256, digest.hexdigest())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class FolderStore(ObjectStore):
    """A folder, made when first written to; its file system must have hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def read_bytes(self, path: str) -> bytes:
        """See ObjectStore."""
        with explained("read", f"{self.url}/{path}"):
            return self._file(path).read_bytes()

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """See ObjectStore."""
        with explained("read", f"{self.url}/{path}"):
            yield from read_chunks(self._file(path), CHUNK_BYTES)

    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """See ObjectStore."""
        with explained("read", f"{self.url}/{path}"), self._file(path).open("rb") as file:
            file.seek(start)
            return file.read(num_bytes)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See ObjectStore."""
        with explained("write", f"{self.url}/{path}"):
            return create_atomically(self._file(path), data)

    def replace_bytes(self, path: str, data: bytes) -> None:
        """See ObjectStore."""
        with explained("write", f"{self.url}/{path}"):
            write_atomically(self._file(path), [data])

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        """See ObjectStore."""
        with explained("read", f"{self.url}/{path}"):
            try:
                data = self._file(path).read_bytes()
            except FileNotFoundError:
                return None
        return data, version_of(data)

    def compare_and_swap(self, path: str, data: bytes, version: str | None) -> bool:
        """See ObjectStore."""
        with explained("write", f"{self.url}/{path}"):
            return swap_atomically(self._file(path), data, version)

    def modified(self, path: str) -> float | None:
        """See ObjectStore."""
        with explained("look at", f"{self.url}/{path}"):
            try:
                return self._file(path).stat().st_mtime
            except FileNotFoundError:
                return None

    def upload(self, path: str, source: Path) -> None:
        """See ObjectStore."""
        with explained("write", f"{self.url}/{path}"):
            write_atomically(self._file(path), read_chunks(source, CHUNK_BYTES))

    def size(self, path: str) -> int | None:
        """See ObjectStore."""
        file = self._file(path)
        with explained("look at", f"{self.url}/{path}"):
            try:
                return file.stat().st_size if file.is_file() else None
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> list[str]:
        """See ObjectStore."""
        folder = self._file(prefix) if prefix else self.root
        with explained("list", f"{self.url}/{prefix}"):
            files = [file for file in folder.rglob("*") if file.is_file()]
        return sorted(
            file.relative_to(self.root).as_posix()
            for file in files
            if not file.name.startswith(TEMPORARY_PREFIX)
        )

    def delete(self, path: str) -> None:
        """See ObjectStore."""
        with explained("delete", f"{self.url}/{path}"):
            self._file(path).unlink(missing_ok=True)

    def check(self) -> None:
        """See ObjectStore."""
        # The name is one that checked_path refuses and list leaves out, so nobody meets it.
        probe = self.root / probe_name()
        with explained("write a probe to", self.url):
            try:
                exclusive = create_atomically(probe, b"a") and not create_atomically(probe, b"b")
                swaps = swap_atomically(probe, b"c", version_of(b"a")) and _is_locked(probe)
            finally:
                probe.unlink(missing_ok=True)
                lock_beside(probe).unlink(missing_ok=True)
        if not exclusive:
            raise not_exclusive(self.url)
        if not swaps:
            raise not_swapping(self.url)

    def leftovers(self) -> Sequence[Leftover]:
        """See ObjectStore."""
        with explained("list", self.url):
            return list(temporary_files(self.root))

    def discard(self, leftover: Leftover) -> None:
        """See ObjectStore."""
        with explained("delete", f"{self.url}/{leftover.name}"):
            (self.root / leftover.name).unlink(missing_ok=True)

    def _file(self, path: str) -> Path:
        return self.root / checked_path(path)


def _is_locked(path: Path) -> bool:
    """Whether a second taker of a lock is kept out while the first one holds it."""
    with locked(path):
        try:
            with locked(path, seconds=0):
                return False
        except OSError:
            return True


def probe_name() -> str:
    """Name a probe as no other process does."""
    return f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
