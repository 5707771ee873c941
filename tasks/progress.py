"""How far a stage is: lines in the run's log, and a progress artifact that Prefect shows."""

import logging
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

LOG_EVERY_SECONDS = 5.0
SHOW_EVERY_SECONDS = 1.0
"""An update of the artifact takes about 12 ms."""

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


def inside_run() -> bool:
    """Whether this code runs inside a Prefect flow or task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def run_logger() -> RunLogger:
    """Prefect's logger of the current run; outside a run the standard logger `tasks`."""
    return get_run_logger() if inside_run() else logging.getLogger("tasks")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.42 s, 12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def artifact_key(text: str) -> str:
    """Turn text into an artifact key: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Progress:
    """Tell how a countable piece of work goes on, without slowing it.

    `start` is what was done before (a run resumed), so that it does not count as speed.

    Example:
        >>> with Progress("replay pairs of digits", 1000, "pairs") as progress:
        ...     progress.advance(16)
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.num_done = self._start = start
        self._clock = clock
        self._note = ""
        self._artifact: UUID | None = None

    def __enter__(self) -> Self:
        """Start the clock, and put an artifact where a run can show it."""
        self._logger = run_logger()
        self._started = self._logged = self._shown = self._clock()
        if inside_run():
            self._show(create=True)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more as done; `note` (a loss, a name) is said along with the next line."""
        self.num_done += count
        self._note = note
        now = self._clock()
        if now - self._logged >= LOG_EVERY_SECONDS and self.num_done < self.total:
            self._logged = now
            self._logger.info("%s", self.line())
        if self._artifact is not None and now - self._shown >= SHOW_EVERY_SECONDS:
            self._shown = now
            self._show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say the end: all done and how fast, or where it stopped."""
        if kind is None:
            self._logger.info("%s", self.line())
        else:
            self._logger.warning("%s; stopped by %s", self.line(), kind.__name__)
        if self._artifact is not None:
            self._show()

    def line(self) -> str:
        """One line: how much of how much, how fast, how long still."""
        elapsed = self._clock() - self._started
        num_new = self.num_done - self._start
        parts = [f"{self.what}: {self.num_done:,} of {self.total:,} {self.unit}"]
        if num_new and elapsed > 0:
            rate = num_new / elapsed
            parts.append(f"{rate:,.{0 if rate >= 100 else 1 if rate >= 1 else 3}f} a second")
            left = self.total - self.num_done
            parts.append(f"{duration(left / rate)} left" if left > 0 else duration(elapsed))
        if self._note:
            parts.append(self._note)
        return ", ".join(parts)

    def _show(self, create: bool = False) -> None:
        """Create or update the artifact; a display that fails is logged and then left alone."""
        percent = 100.0 * min(1.0, self.num_done / self.total) if self.total else 100.0
        try:
            if create:
                key = artifact_key(f"progress-{self.what}")
                self._artifact = create_progress_artifact(
                    percent, key=key, description=self.line(), _sync=True
                )
            elif self._artifact is not None:
                update_progress_artifact(
                    self._artifact, percent, description=self.line(), _sync=True
                )
        except Exception as error:  # the work must not die of its own display
            self._artifact = None
            self._logger.warning("%s: the progress artifact is not kept (%s)", self.what, error)
