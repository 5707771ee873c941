"""Bars on a terminal: whole lines above them, nothing left behind, and no harm from either."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from tasks import progress
from tasks.progress import Progress, terminal
from tests.clock import Clock
from tests.worlds import ROOT

pytestmark = pytest.mark.usefixtures("nobody_looks_on")
COLUMNS = 100


class Screen:
    """A terminal as far as rich uses one: the lines that a person would see in the end."""

    def __init__(self, output: str) -> None:
        self.lines = [""]
        self.cursor_shown = True
        row = column = 0
        for escape, text in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|(\r|\n|[^\r\n\x1b]+)", output):
            if text == "\r":
                column = 0
            elif text == "\n":
                row += 1
                self.lines += [""] * (row + 1 - len(self.lines))
            elif text:
                line = self.lines[row].ljust(column)
                self.lines[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
            elif escape == "2K":
                self.lines[row] = ""
            elif escape.endswith("A"):
                row -= int(escape[:-1])
            elif escape in ("?25l", "?25h"):
                self.cursor_shown = escape == "?25h"
            else:
                assert escape.endswith("m"), f"an escape that this terminal does not know: {escape}"


def on_a_terminal(script: str, stdout: Path | None = None, **environment: str) -> str:
    """Run a script with a terminal as its standard error (and output); all that came to it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "CI")}
    with open(stdout or os.devnull, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=inherited | {"TERM": "xterm-256color"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout else follower,
            stderr=follower,
        )
    os.close(follower)
    output = b""
    while True:
        try:
            output += (piece := os.read(leader, 65536))
        except OSError:  # how Linux says that the other end was closed
            break
        if not piece:
            break
    os.close(leader)
    assert process.wait(timeout=60) == 0, output.decode()
    return output.decode()


class LookedOn:
    """A terminal in memory in place of standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=True, width=COLUMNS, color_system=None)
        monkeypatch.setattr(progress, "terminal", lambda _: console)

    @property
    def drawn(self) -> str:
        return self.file.getvalue()


@pytest.fixture
def looked_on(monkeypatch: pytest.MonkeyPatch) -> LookedOn:
    monkeypatch.setenv("TERM", "xterm-256color")
    return LookedOn(monkeypatch)


BESIDE_PREFECT = """
import logging, sys
from prefect.logging.configuration import setup_logging
from tasks import progress

setup_logging()
logger = logging.getLogger("prefect.here")
logger.setLevel(logging.INFO)
progress.run_logger = lambda: logger
now = 0.0

def clock():
    global now
    now += 1.0
    return now

with progress.Progress("Outer", 3, "steps", clock=clock) as outer:
    for step in range(3):
        logger.info("line %d", step)
        outer.advance(note="loss [red]0.5[/red]")
        print("printed", step)
        print("warned", step, file=sys.stderr)
        with progress.Progress("Inner", 2, "batches", clock=clock) as inner:
            inner.advance(2)
print("after", file=sys.stderr)
assert type(sys.stderr).__name__ == "TextIOWrapper"
"""


def without_time_and_speed(lines: list[str]) -> list[str]:
    return [re.sub(r"^.* - |, [0-9.]+ a second, .*s(?=$|,)", "", line) for line in lines]


LOGGED = ["line 0", "line 1", "line 2", *["Inner: 2 of 2 batches"] * 3]
LAST = "Outer: 3 of 3 steps, loss [red]0.5[/red]"


def test_log_lines_and_prints_stay_whole_and_the_bar_leaves_nothing_behind() -> None:
    output = on_a_terminal(BESIDE_PREFECT)
    printed = [f"{word} {step}" for word in ("printed", "warned") for step in range(3)]
    screen = Screen(output)
    assert screen.cursor_shown
    assert screen.lines.pop() == ""
    lines = without_time_and_speed(screen.lines)
    assert [line for line in lines if not line.startswith("Outer: 1")][-2:] == [LAST, "after"]
    seen = [line for line in lines if not line.startswith(("Outer", "after"))]
    assert sorted(seen) == sorted(LOGGED + printed)
    assert "━" in output  # or else there was no bar to leave something behind
    assert "67 %" in output


def test_a_bar_is_seen_below_the_line_that_came_last() -> None:
    output = on_a_terminal(BESIDE_PREFECT)
    cut = output.index("\r", output.index("line 2\r") + len("line 2\r"))
    *_, line, bar = Screen(output[:cut]).lines
    assert line.endswith(" - line 2")
    assert re.fullmatch(
        r"Outer ━+[╸╺]?━* 67 % 2/3 steps, 0\.\d+/s, .*s left, loss \[red\]0\.5\[/red\] *", bar
    )


def test_what_is_written_to_a_file_stays_out_of_the_terminal(tmp_path: Path) -> None:
    output = on_a_terminal(BESIDE_PREFECT, stdout=tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "printed 0\nprinted 1\nprinted 2\n"
    assert "printed" not in output
    assert "━" in output


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines_only(
    environment: dict[str, str],
) -> None:
    output = on_a_terminal(BESIDE_PREFECT, **environment)
    assert "line 0" in output
    assert "67 %" not in output


def test_colour_forced_on_a_log_file_makes_no_terminal_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with (tmp_path / "log.txt").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        assert Console(stderr=True).is_interactive
        assert terminal(logging.getLogger("tasks")) is None


IN_A_FLOW = """
from prefect import flow, task
from tasks.progress import Progress, run_logger

@task
def work():
    with Progress("Steps", 3, "steps") as progress:
        for step in range(3):
            run_logger().info("line %d", step)
            progress.advance()

@flow
def whole():
    work()

whole()
"""


def test_in_a_flow_run_in_the_foreground(prefect_api: None) -> None:
    from prefect.settings import PREFECT_API_URL

    output = on_a_terminal(IN_A_FLOW, PREFECT_API_URL=str(PREFECT_API_URL.value()))
    lines = Screen(output).lines
    assert "━" in output
    for wanted in ("line 0", "line 1", "line 2", "Steps: 3 of 3 steps"):
        (found,) = (line for line in lines if wanted in line)
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \| INFO    \| Task run 'work-\w+' - \w", found)
    assert not any("━" in line for line in lines)


def test_beside_a_bar_lines_are_rare_and_it_is_drawn_twice_a_second(
    looked_on: LookedOn, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with (
        caplog.at_level(logging.INFO, logger="tasks"),
        Progress("Steps", 1280, "steps", clock=clock) as bar,
    ):
        for _ in range(1280):
            clock.now += 0.125
            bar.advance()
    assert [message.split(" steps")[0] for message in caplog.messages] == [
        "Steps: 40 of 1,280",  # after 5 seconds
        "Steps: 520 of 1,280",  # after 65
        "Steps: 1,000 of 1,280",
        "Steps: 1,280 of 1,280",
    ]
    # 160 seconds; once when it is made, and once more for the refresh of a display that opens.
    assert 320 <= looked_on.drawn.count(" steps") <= 322


def test_a_bar_taken_away_is_gone_at_once(looked_on: LookedOn) -> None:
    with Progress("Outer", 3, "steps"):
        with Progress("Inner", 3, "steps"):
            assert [line.split()[0] for line in Screen(looked_on.drawn).lines] == ["Outer", "Inner"]
        assert [line[:5] for line in Screen(looked_on.drawn).lines] == ["Outer", ""]
    assert set(Screen(looked_on.drawn).lines) == {""}
    assert Screen(looked_on.drawn).cursor_shown


def test_bars_of_two_threads_may_end_in_any_order(looked_on: LookedOn) -> None:
    clock = Clock()
    error = sys.stderr
    first = Progress("First", 4, "steps", clock=clock).__enter__()
    second = Progress("Second", 4, "steps", clock=clock).__enter__()
    first.__exit__(None, None, None)
    clock.now += 1.0
    second.advance(2)
    assert Screen(looked_on.drawn).lines[0].startswith("Second")
    assert "50 % 2/4 steps, 2.0/s, 1.0 s left" in looked_on.drawn
    assert sys.stderr is not error
    second.__exit__(None, None, None)
    assert sys.stderr is error


class Broken(io.StringIO):
    """A terminal whose window is closed after a while."""

    closed_now = False

    def write(self, text: str) -> int:
        if self.closed_now:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Broken()
    console = Console(file=file, force_terminal=True, width=COLUMNS)
    monkeypatch.setattr(progress, "terminal", lambda _: console)
    return file


@pytest.mark.parametrize(("when", "lines"), [("before", 8), ("later", 7), ("at the end", 2)])
def test_a_terminal_that_goes_away_does_not_stop_the_work(
    when: str, lines: int, broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a bar the lines are the progress: every five seconds of 40, the last at the end.

    Later is after 14 seconds: one line beside the bar, at 5, then from 15 on.
    """
    clock, error = Clock(), sys.stderr
    broken.closed_now = when == "before"
    with (
        caplog.at_level(logging.INFO, logger="tasks"),
        Progress("Steps", 40, "steps", clock=clock) as bar,
    ):
        for second in range(40):
            clock.now += 1.0
            broken.closed_now |= when == "later" and second == 13
            bar.advance()
        broken.closed_now = True
    assert sys.stderr is error
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    given_up = "Steps: the bar is not drawn any more ([Errno 5] Input/output error)"
    assert warned == ([] if when == "at the end" else [given_up])
    assert len(caplog.messages) - len(warned) == lines
    broken.closed_now = False
    with Progress("Again", 1, "steps"):
        assert "Again" in broken.getvalue()


def test_a_display_that_broke_is_not_mixed_up_with_the_next_one(broken: Broken) -> None:
    error = sys.stderr
    with Progress("First", 4, "steps"):
        broken.closed_now = True
        with Progress("Second", 4, "steps"):
            broken.closed_now = False
        third = Progress("Third", 4, "steps").__enter__()
    assert sys.stderr is not error  # the end of the first did not close the display of the third
    third.__exit__(None, None, None)
    assert sys.stderr is error
