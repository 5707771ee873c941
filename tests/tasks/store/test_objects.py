"""The folder store when the power, the disk or the file system gives way."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.store import local_files
from tasks.store.objects import FolderStore

WRITER = """
import sys
from pathlib import Path
from tasks.store.objects import FolderStore

store = FolderStore(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10**9):
    store.replace_bytes("view", bytes([number % 256]) * 3_000_000)
"""


def test_a_killed_writer_leaves_the_old_object_or_the_new(tmp_path: Path) -> None:
    store, chance = FolderStore(tmp_path), random.Random(0)  # noqa: S311 - no secret
    store.replace_bytes("view", b"a" * 3_000_000)
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = store.read_bytes("view")
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
    assert store.list() == ["view"], "what the killed left is no object"


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_a_full_disk_is_a_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = FolderStore(tmp_path)
    store.replace_bytes("view", b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "replace":
        monkeypatch.setattr(Path, step, fail)
    else:
        monkeypatch.setattr(local_files.os, step, fail)
    with pytest.raises(StoreError, match="No space left on device"):
        store.put_if_absent("new", b"x") if step == "link" else store.replace_bytes("view", b"new")
    monkeypatch.undo()
    assert store.read_bytes("view") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


def test_a_place_that_cannot_be_made_is_said_as_such() -> None:
    with pytest.raises(StoreError, match="no such place and it cannot be made; check the path"):
        FolderStore(Path("/proc/gift-store")).check()


def test_a_file_system_without_hard_links_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(local_files.os, "link", refuse)
    with pytest.raises(StoreError, match="cannot write a probe to"):
        FolderStore(tmp_path).check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_does_not_exclude_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files.os, "link", os.replace)
    with pytest.raises(StoreError, match="create an object only when it is absent"):
        FolderStore(tmp_path).check()


def test_a_fetch_that_fails_leaves_no_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put_if_absent("a", b"1")
    with pytest.raises(StoreError, match=r"a was altered: its SHA-256 is 6b86b273.*says 0000"):
        store.fetch("a", tmp_path / "here" / "a", "0" * 64)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_home_folder_and_a_file_address_are_folders(tmp_path: Path) -> None:
    from tasks.store.address import open_store

    assert open_store(tmp_path.as_uri()).url == str(tmp_path)
    assert not open_store("~/gift").url.startswith("~")
