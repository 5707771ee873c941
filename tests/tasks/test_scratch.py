"""Temporary folders: gone at the end, and gone with the next process where theirs was killed."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tasks.scratch import scratch_folder
from tests.worlds import ROOT

WORKS = """
import os, sys, time
from pathlib import Path
from tasks.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_bytes(bytes(1000))
    if sys.argv[2] == "fork" and os.fork():
        os._exit(0)
    print(folder, os.getpid(), flush=True)
    time.sleep(600)
"""


@contextmanager
def at_work(place: Path, how: str = "alone") -> Iterator[tuple[Path, int]]:
    """Another process, or one that it forked before it died, and the folder that it works in."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORKS, str(place), how]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder, pid = process.stdout.readline().split()
        try:
            yield Path(folder), int(pid)
        finally:
            kill(int(pid))


def kill(pid: int) -> None:
    """Kill it and wait until it is gone, whoever its parent is."""
    try:
        os.kill(pid, 9)
        with ExitStack() as closing:
            descriptor = os.pidfd_open(pid)
            closing.callback(os.close, descriptor)
            assert select.select([descriptor], [], [], 30)[0]
    except ProcessLookupError:
        return


def an_hour_ago(folder: Path) -> None:
    os.utime(folder, (time.time() - 3600,) * 2)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_folder_is_empty_and_goes_at_the_end(
    tmp_path: Path, error: type[BaseException] | None
) -> None:
    seen = []
    try:
        with scratch_folder(tmp_path) as folder:
            seen.append(folder)
            assert folder.parent == tmp_path
            assert not list(folder.iterdir())
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_text("something")
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert seen
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_folder_stays_with_who_works_in_it_and_goes_after_a_kill(
    tmp_path: Path, how: str
) -> None:
    with at_work(tmp_path, how) as (folder, pid):
        an_hour_ago(folder)
        with scratch_folder(tmp_path):
            assert (folder / "weights").exists()
        kill(pid)
        with scratch_folder(tmp_path):
            assert not folder.exists()


def test_only_the_lock_of_another_thread_s_folder_keeps_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as first:
        an_hour_ago(first)
        with scratch_folder(tmp_path) as second:
            assert first.exists()
            assert second != first


def test_what_is_just_made_or_another_machine_s_or_only_a_link_stays(tmp_path: Path) -> None:
    with at_work(tmp_path) as (just_made, pid):
        kill(pid)
    begin, _, rest = just_made.name.removeprefix("gift-").partition("-")
    elsewhere = tmp_path / f"gift-{'0' * len(begin)}-{rest}"
    elsewhere.mkdir()
    an_hour_ago(elsewhere)
    target = tmp_path / "of somebody"
    target.mkdir()
    (target / "file").write_text("something")
    link = tmp_path / f"gift-{begin}-link"
    link.symlink_to(target)
    os.utime(link, (time.time() - 3600,) * 2, follow_symlinks=False)
    with scratch_folder(tmp_path):
        assert just_made.exists()
        assert elsewhere.exists()
        assert link.is_symlink()
        assert (target / "file").exists()


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"), scratch_folder(tmp_path / "none"):
        pass
