"""Bars on a terminal: below the lines of the log, and gone when the work is done."""

import logging
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

from prefect.logging.handlers import PrefectConsoleHandler
from rich import progress as live
from rich.console import Console
from rich.table import Column

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


def terminal(logger: RunLogger) -> Console | None:
    """The console to draw a bar on; None when standard error is no terminal, so nobody looks on.

    It is the very console that Prefect prints the lines of `logger` with: a live display on a
    second one does not know of them, and each line would begin at the end of the bar.
    """
    console = Console(stderr=True)
    # FORCE_COLOR makes rich take a CI system's log for a terminal, hence the second question.
    if not (console.is_interactive and console.file.isatty()):
        return None
    for handler in _handlers(logger):
        if isinstance(handler, PrefectConsoleHandler) and handler.console.file is console.file:
            return handler.console
    return console


def _handlers(logger: RunLogger) -> Iterator[logging.Handler]:
    """Every handler that a line of this logger comes to."""
    place: logging.Logger | None
    place = logger.logger if isinstance(logger, logging.LoggerAdapter) else logger
    while place is not None:
        yield from place.handlers
        place = place.parent if place.propagate else None


class Bar(NamedTuple):
    """A line of a live display."""

    display: live.Progress
    number: live.TaskID


class Bars:
    """The bars of this process, nested or of several threads: one display, for rich has but one.

    It draws when it is told to and has no thread of its own: nothing draws, and no lock is held,
    behind the back of a process that is being forked for a data loader.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: live.Progress | None = None

    def add(self, console: Console, what: str, percent: float, state: str) -> Bar:
        """Draw one more bar; the first opens the display."""
        with self._lock:
            display = self._display or _display_on(console)
            try:
                display.start()
                bar = display.add_task(what, total=100.0, completed=round(percent), state=state)
            except BaseException:
                self._display = None
                display.stop()
                raise
            self._display = display
            return Bar(display, bar)

    def draw(self, bar: Bar, percent: float, state: str) -> None:
        """Draw the display with a bar as it is now."""
        with self._lock:
            if bar.display is self._display:
                bar.display.update(bar.number, completed=percent, state=state, refresh=True)

    def remove(self, bar: Bar) -> None:
        """Take a bar away; the last closes the display, of which nothing remains."""
        with self._lock:
            if bar.display is not self._display:
                return
            bar.display.remove_task(bar.number)
            if bar.display.task_ids:
                bar.display.refresh()
            else:
                self._display = None
                bar.display.stop()


BARS = Bars()
"""All of this process."""


def _display_on(console: Console) -> live.Progress:
    """Words and bars; styles are spelled out, for the theme of Prefect's console has no names."""
    words = ("{task.description}", "{task.percentage:.0f} %", "{task.fields[state]}")
    columns = (None, None, Column(no_wrap=True, ratio=1))  # when it is narrow, the note is cut
    what, percent, state = (
        live.TextColumn(text, style="default", markup=False, table_column=column)
        for text, column in zip(words, columns, strict=True)
    )
    bar = live.BarColumn(
        bar_width=min(30, console.width // 8),
        style="bright_black",
        complete_style="cyan",
        finished_style="green",
    )
    return live.Progress(
        *(what, bar, percent, state),
        console=console,
        auto_refresh=False,
        transient=True,
        expand=True,
        # What others print goes above the bar, but not what is being written to a file.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=True,
    )
