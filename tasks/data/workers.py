"""How many processes decode images beside a training process, and whether they have room."""

import os
import tempfile

from gift_core.errors import SettingsError

MAX_WORKERS = 8
MAX_TEMPORARY_FOLDER = 75
"""Bytes: the address of a socket has 107, and multiprocessing adds 32 to the folder's name."""


def num_cpus() -> int:
    """How many processors this process may use (a container's or a scheduler's share)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process to processors


def default_workers(processes: int = 1) -> int:
    """How many workers each of `processes` training processes has when nobody says."""
    return max(1, min(MAX_WORKERS, num_cpus() // processes - 1))


def check_temporary_folder() -> None:
    """SettingsError when sockets of decoding workers have no room below the temporary folder.

    A worker whose socket cannot be made hangs, and the training with it.
    """
    folder = tempfile.gettempdir()
    if (length := len(os.fsencode(folder))) > MAX_TEMPORARY_FOLDER:
        raise SettingsError(
            f"temporary folder {folder}: {length} characters, and decoding workers need at "
            f"most {MAX_TEMPORARY_FOLDER}; set TMPDIR to a shorter one, or execution.workers to 0"
        )
