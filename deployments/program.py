"""A server of one's own as a process group that is started, ended, killed and started again."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

STOP_SECONDS = 30


class Program:
    """A program in a process group of its own; all that it started ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command, self._environment, self._log = list(command), dict(environment), log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path | None = None) -> None:
        """Start it in a folder (default: this one); what it says goes to the end of its log."""
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 - servers that the caller names
                self._command,
                env=self._environment,
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is its group's as well; RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} was not started")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, and end the whole group when it does not within so many seconds."""
        self._end(signal.SIGTERM, signal.SIGKILL, seconds=seconds)

    def kill(self) -> None:
        """End the whole group at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, *signals: signal.Signals, seconds: float = STOP_SECONDS) -> None:
        process = self._process
        for signum in signals:
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signum)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=seconds)
