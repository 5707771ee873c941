"""An object of a store as a file that can be read from the middle, part by part."""

import io

from gift_core.errors import StoreError
from tasks.store.objects import ObjectStore


class StoredFile(io.RawIOBase):
    """Read-only; each read is one request for just these bytes. StoreError when it is missing."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path
        size = store.size(path)
        if size is None:
            raise StoreError(f"{store.url}/{path} does not exist; run the sequence again")
        self._size, self._place = size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, from the start, from here or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes; all that is left for -1 or None."""
        left = max(0, self._size - self._place)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted == 0:
            return b""
        data = self._store.read_range(self._path, self._place, wanted)
        self._place += len(data)
        return data
