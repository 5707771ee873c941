"""How far a stage is: lines in the run's log, an artifact in Prefect, a bar on a terminal."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from tasks.progress_bars import BARS, Bar, RunLogger, terminal

LOG_EVERY_SECONDS = 5.0
LOG_BESIDE_BAR_SECONDS = 60.0
"""The bar says it already; after the first, lines are for whoever reads the log later."""
SHOW_EVERY_SECONDS = 1.0
"""An update of the artifact takes about 12 ms."""
DRAW_EVERY_SECONDS = 0.5
"""Drawing a bar takes about 1.3 ms: a quarter of a percent of the time."""


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
        self._bar: Bar | None = None
        self._log_every = LOG_EVERY_SECONDS

    def __enter__(self) -> Self:
        """Start the clock, put an artifact where a run can show it, a bar where it is seen."""
        self._logger = run_logger()
        self._started = self._logged = self._shown = self._drawn = self._clock()
        if inside_run():
            self._show(create=True)
        self._draw(create=True)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more as done; `note` (a loss, a name) is said along with the next line."""
        self.num_done += count
        self._note = note
        now = self._clock()
        if now - self._logged >= self._log_every and self.num_done < self.total:
            self._logged = now
            self._log_every = LOG_EVERY_SECONDS if self._bar is None else LOG_BESIDE_BAR_SECONDS
            self._logger.info("%s", self.line())
        if self._bar is not None and now - self._drawn >= DRAW_EVERY_SECONDS:
            self._drawn = now
            self._draw()
        if self._artifact is not None and now - self._shown >= SHOW_EVERY_SECONDS:
            self._shown = now
            self._show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say the end: all done and how fast, or where it stopped; the bar is gone by then."""
        self._remove_bar()
        if kind is None:
            self._logger.info("%s", self.line())
        else:
            self._logger.warning("%s; stopped by %s", self.line(), kind.__name__)
        if self._artifact is not None:
            self._show()

    def line(self) -> str:
        """One line: how much of how much, how fast, how long still."""
        done = f"{self.what}: {self.num_done:,} of {self.total:,} {self.unit}"
        return ", ".join([done, *self._pace(" a second")])

    @property
    def percent(self) -> float:
        """How much is done, from 0 to 100."""
        return 100.0 * min(1.0, self.num_done / self.total) if self.total else 100.0

    def _pace(self, a_second: str) -> Iterator[str]:
        """How fast, how long still (at the end: how long it took), the note."""
        elapsed = self._clock() - self._started
        num_new = self.num_done - self._start
        if num_new and elapsed > 0:
            rate = num_new / elapsed
            yield f"{rate:,.{0 if rate >= 100 else 1 if rate >= 1 else 3}f}{a_second}"
            left = self.total - self.num_done
            yield f"{duration(left / rate)} left" if left > 0 else duration(elapsed)
        if self._note:
            yield self._note

    def _draw(self, create: bool = False) -> None:
        """Open or update the bar; one that fails is said once and given up, like the artifact."""
        done = f"{self.num_done:,}/{self.total:,} {self.unit}"
        state = ", ".join([done, *self._pace("/s")])
        try:
            if create and (console := terminal(self._logger)) is not None:
                self._bar = BARS.add(console, self.what, self.percent, state)
            elif self._bar is not None:
                BARS.draw(self._bar, self.percent, state)
        except Exception as error:  # a terminal that was closed, say
            self._remove_bar()
            self._logger.warning("%s: the bar is not drawn any more (%s)", self.what, error)

    def _remove_bar(self) -> None:
        bar, self._bar = self._bar, None
        self._log_every = LOG_EVERY_SECONDS
        if bar is not None:
            with suppress(Exception):
                BARS.remove(bar)

    def _show(self, create: bool = False) -> None:
        """Create or update the artifact; a display that fails is logged and then left alone."""
        try:
            if create:
                key = artifact_key(f"progress-{self.what}")
                self._artifact = create_progress_artifact(
                    self.percent, key=key, description=self.line(), _sync=True
                )
            elif self._artifact is not None:
                update_progress_artifact(
                    self._artifact, self.percent, description=self.line(), _sync=True
                )
        except Exception as error:  # the work must not die of its own display
            self._artifact = None
            self._logger.warning("%s: the progress artifact is not kept (%s)", self.what, error)
