"""A run as a fork of this process: torch and Prefect are imported once, and each run dies alone."""

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RUN_SECONDS = 600  # a run that takes longer hangs, and is killed


class Teller:
    """Writes lines to a pipe; at line number `hold_at` the process waits to be killed."""

    def __init__(self, descriptor: int, hold_at: int | None) -> None:
        self._descriptor, self._hold_at, self._num_told = descriptor, hold_at, 0
        self._lock = threading.Lock()  # who tells something while the process waits, waits as well

    def __call__(self, *words: object) -> None:
        """Tell one line; it is whole, whatever becomes of the process."""
        with self._lock:
            os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())
            self._num_told += 1
            while self._num_told == self._hold_at:
                time.sleep(1)


@dataclass(frozen=True)
class Kill:
    """When a run is killed: so many seconds after its start, or after a line that it tells.

    With `seconds` None the run waits at that line, so that the kill is neither early nor late.
    """

    line: int | None
    seconds: float | None

    def __str__(self) -> str:
        if self.line is None:
            return f"after {self.seconds:.2f} s"
        delay = "" if self.seconds is None else f" and {1000 * self.seconds:.0f} ms"
        return f"at moment {self.line}{delay}"


@dataclass(frozen=True)
class Told:
    """What a run told, how long it took, and whether it was killed; `exit_code` -1: by a signal."""

    lines: tuple[str, ...]
    seconds: float
    exit_code: int

    @property
    def was_killed(self) -> bool:
        """Whether the kill came before the end."""
        return self.exit_code < 0


def forked(work: Callable[[Teller], None], log: Path, kill: Kill | None = None) -> Told:
    """Do the work in a process of its own, its output in the file `log`, and kill it if asked.

    The kill is SIGKILL to its whole process group; one that hangs is killed unasked.
    """
    reading, writing = os.pipe()
    hold_at = kill.line if kill and kill.seconds is None else None
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        _work(work, Teller(writing, hold_at), log)
    os.close(writing)
    started = time.monotonic()
    try:
        text = _listen(child, reading, kill, started)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    finally:
        _kill_group(child)  # what it left running; itself only when we are interrupted
        os.close(reading)
        _, status = os.waitpid(child, 0)
    code = -1 if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    return Told(tuple(text.decode().splitlines()), time.monotonic() - started, code)


def _listen(child: int, reading: int, kill: Kill | None, started: float) -> bytes:
    """What the child tells until it ends by itself or is killed."""
    text = b""
    deadline = started + RUN_SECONDS
    if kill and kill.line is None:
        deadline = started + (kill.seconds or 0.0)
    while True:
        if kill and kill.line is not None and text.count(b"\n") >= kill.line:
            deadline = min(deadline, time.monotonic() + (kill.seconds or 0.0))
        # A decoding worker of the child may hold the pipe open after it: its end is told besides.
        wait = max(0.0, min(0.5, deadline - time.monotonic()))
        if select.select([reading], [], [], wait)[0]:
            piece = os.read(reading, 2**16)
            text += piece
            if not piece:
                return text
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return text + _rest(reading)
        if time.monotonic() >= deadline:
            _kill_group(child)
            return text + _rest(reading)


def _rest(reading: int) -> bytes:
    """What was told before the kill and not read yet."""
    text = b""
    while select.select([reading], [], [], 0.05)[0] and (piece := os.read(reading, 2**16)):
        text += piece
    return text


def _kill_group(child: int) -> None:
    for number in (child, -child):  # it may not have made its group yet
        try:
            os.kill(number, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _work(work: Callable[[Teller], None], tell: Teller, log: Path) -> None:
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work(tell)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
