"""Where new tasks are dropped: a folder or a prefix of a bucket, with a folder for each task.

<inbox>/<name>/task.yaml        written last: the mark that the folder is complete
<inbox>/<name>/...              the data
<inbox>/.quarantine/<name>/     what was broken, with reason.txt

Inbox                what a look asks of an inbox
|-- FolderInbox      a folder that every worker sees; data stay where they are
`-- BucketInbox      s3://bucket/prefix; data are copied into a folder that every worker sees
"""

import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gift_core.errors import DataError, StoreError
from tasks.progress import run_logger
from tasks.scratch import scratch_folder
from tasks.sequence import NAME_PATTERN
from tasks.store.failures import explained
from tasks.store.local_files import write_atomically
from tasks.store.objects import ObjectStore, checked_path
from tasks.task_file import TASK_FILE
from tasks.yaml_file import MAX_BYTES

QUARANTINE = ".quarantine"
REASON = "reason.txt"


@dataclass(frozen=True)
class Waiting:
    """A complete folder of an inbox; `place` also tells which task.yaml lay there."""

    name: str
    place: str
    time: float


class Inbox(ABC):
    """Every failure of the inbox itself is a StoreError."""

    url: str

    @abstractmethod
    def look(self) -> list[Waiting]:
        """The complete folders, those that were completed first in front."""

    @abstractmethod
    def fetch(self, waiting: Waiting) -> Path:
        """A local folder with what lies there; DataError when names are no names of files."""

    @abstractmethod
    def quarantine(self, waiting: Waiting, reason: str) -> str:
        """Move a folder out of the way, with the reason beside it; where it is now."""


class FolderInbox(Inbox):
    """A folder on this machine or a file system that all workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def look(self) -> list[Waiting]:
        """See Inbox; an inbox that does not exist yet is empty."""
        with explained("look into", self.url):
            if not self.root.is_dir():
                return []
            found = [self._waiting(path) for path in self.root.iterdir() if path.name[0] != "."]
        return sorted((each for each in found if each), key=lambda each: (each.time, each.name))

    def _waiting(self, folder: Path) -> Waiting | None:
        mark = folder / TASK_FILE
        try:
            status = mark.lstat()
            regular = stat.S_ISREG(status.st_mode)  # a pipe would be waited for
            content = _beginning(mark) if regular else b""
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Waiting(folder.name, _place(self.url, folder.name, content), status.st_mtime)

    def fetch(self, waiting: Waiting) -> Path:
        """See Inbox: the folder itself."""
        return self.root / waiting.name

    def quarantine(self, waiting: Waiting, reason: str) -> str:
        """See Inbox; the reason is there before the folder moves."""
        source = self.root / waiting.name
        with explained("move to quarantine", str(source)):
            (self.root / QUARANTINE).mkdir(exist_ok=True)
            names = _free_names(waiting.name, set(os.listdir(self.root / QUARANTINE)))
            target = self.root / QUARANTINE / next(names)
            if source.is_symlink():
                source.unlink()
                target.mkdir()
                source = target
            write_atomically(source / REASON, [f"{reason}\n".encode()])
            source.rename(target)
        return str(target)


class BucketInbox(Inbox):
    """A prefix of a bucket; what arrives is copied below `mirror`, where training reads it."""

    def __init__(self, store: ObjectStore, mirror: Path) -> None:
        self._store, self._mirror, self.url = store, mirror.expanduser().absolute(), store.url

    def look(self) -> list[Waiting]:
        """See Inbox."""
        found = []
        for path in self._store.list():
            name, _, rest = path.partition("/")
            if rest == TASK_FILE and name[0] != "." and self._has_proper_name(path):
                content = self._store.read_bytes(path)[: MAX_BYTES + 1]
                place = _place(self.url, name, content)
                found.append(Waiting(name, place, self._store.modified(path) or 0.0))
        return sorted(found, key=lambda each: (each.time, each.name))

    def _has_proper_name(self, path: str) -> bool:
        """Whether the store can read it at all; what it cannot read it cannot move away either."""
        try:
            checked_path(path)
        except StoreError as error:
            run_logger().warning("%s: left alone: %s", self.url, error)
            return False
        return True

    def fetch(self, waiting: Waiting) -> Path:
        """See Inbox; what has the size of the object already is not copied again."""
        if not re.fullmatch(NAME_PATTERN, waiting.name):
            raise DataError(
                f"{self.url}/{waiting.name}: give the folder a name of lower-case letters, "
                "digits, - and _"
            )
        digest = hashlib.sha256(waiting.place.encode()).hexdigest()[:16]
        folder = self._mirror / f"{waiting.name}-{digest}"
        for path in self._store.list(waiting.name):
            target = folder / path.removeprefix(f"{waiting.name}/")
            try:
                size = self._store.size(path)
            except StoreError as error:
                raise DataError(str(error)) from None
            if not target.is_file() or target.stat().st_size != size:
                self._store.fetch(path, target)
        return folder

    def quarantine(self, waiting: Waiting, reason: str) -> str:
        """See Inbox: copied, then removed, the mark first; what has no proper name stays."""
        taken = {path.split("/")[1] for path in self._store.list(QUARANTINE)}
        target = f"{QUARANTINE}/{next(_free_names(waiting.name, taken))}"
        copied = [
            path
            for path in self._store.list(waiting.name)
            if self._copy(path, f"{target}/{path.removeprefix(f'{waiting.name}/')}")
        ]
        self._store.replace_bytes(f"{target}/{REASON}", f"{reason}\n".encode())
        for path in sorted(copied, key=lambda each: each != f"{waiting.name}/{TASK_FILE}"):
            self._store.delete(path)
        return f"{self.url}/{target}"

    def _copy(self, source: str, target: str) -> bool:
        with scratch_folder() as folder:
            try:
                self._store.fetch(source, Path(folder, "object"))
                self._store.upload(target, Path(folder, "object"))
            except StoreError:
                return False
        return True


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _place(url: str, name: str, content: bytes) -> str:
    return f"{url}/{name} {hashlib.sha256(content).hexdigest()}"


def _free_names(name: str, taken: set[str]) -> Iterator[str]:
    if name not in taken:
        yield name
    yield from (f"{name}-{n}" for n in range(2, len(taken) + 3) if f"{name}-{n}" not in taken)
