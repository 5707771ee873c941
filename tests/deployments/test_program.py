"""A program ends with all that it started, whether it wants to or not, and starts again."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.program import Program

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def child_of(log: Path, number: int) -> int:
    """What the program said at its start number `number`: the process that it started."""
    deadline = time.monotonic() + 60
    while len(said := log.read_text().split()) < number:
        assert time.monotonic() < deadline, "it says nothing"
        time.sleep(0.05)
    return int(said[-1])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_whole_group_ends_and_it_starts_again(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.program.STOP_SECONDS", 1)
    program = Program([sys.executable, "-c", STUBBORN], {}, tmp_path / "log")
    for number in (1, 2):
        program.start(tmp_path)
        pid, child = program.pid, child_of(tmp_path / "log", number)
        assert program.is_alive
        assert not is_gone(child)
        getattr(program, end)()
        assert not program.is_alive
        deadline = time.monotonic() + 10
        while not (is_gone(pid) and is_gone(child)):
            assert time.monotonic() < deadline, "something was left"
            time.sleep(0.05)


def test_one_that_was_not_started_has_no_process(tmp_path: Path) -> None:
    program = Program(["nothing"], {}, tmp_path / "log")
    program.stop()
    with pytest.raises(RuntimeError, match="nothing was not started"):
        _ = program.pid
