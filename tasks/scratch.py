"""Temporary folders that the next process on the machine removes when their own was killed."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp

_PREFIX = "gift-"
_SETTLED_SECONDS = 60
"""A folder is locked just after it is made; nobody looks at it for so long."""


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make an empty folder in `parent` (default: the system's), which is removed at the end.

    A process that is killed cannot remove its folder, and a stage may leave gigabytes. So each one
    holds a lock on its folder, which ends with the process and with what it forked, and removes
    the folders of its user, machine and `parent` that nobody holds. Raises OSError when the folder
    cannot be made.
    """
    place = Path(gettempdir()) if parent is None else parent
    _remove_abandoned(place)
    folder = Path(mkdtemp(prefix=_prefix(), dir=place))
    with _held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what stays, the next process removes


@cache
def _prefix() -> str:
    """The name's beginning, which tells machines apart where several share a disk.

    Locks are seen by one kernel only, so the name has that kernel's start. Where there is no such
    number, folders are made and nobody else's are removed.
    """
    with suppress(OSError):
        return f"{_PREFIX}{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}-"
    return f"{_PREFIX}{os.getpid()}-"


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False when another process has it, or the disk knows no locks."""
    with ExitStack() as closing:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            closing.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _remove_abandoned(place: Path) -> None:
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix()) and _may_be_abandoned(entry):
                with _held(Path(entry)) as alone:
                    if alone:
                        shutil.rmtree(entry, ignore_errors=True)


def _may_be_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:  # its owner has just removed it
        return False
    settled = facts.st_mtime < time.time() - _SETTLED_SECONDS
    return entry.is_dir(follow_symlinks=False) and facts.st_uid == os.geteuid() and settled
