"""What every hostile input must find: a value or one sentence, soon, and no file elsewhere.

`Inputs.num` counts, so that a last test can say how many inputs were really read.
"""

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# Readers import these where they need them; here, because the clock is on there.
import safetensors.torch  # noqa: F401
from hypothesis import HealthCheck, Phase, settings

import tasks.models.preprocessing
import tasks.models.towers  # noqa: F401
from gift_core.errors import MAX_CHARACTERS, GiftError

SECONDS = 4.0
"""Processor time for one input; most take a millisecond."""
PATIENCE = 30.0
"""Time by the clock, for what waits instead of computing: the machine may be busy."""


class TooSlow(BaseException):
    """An input held its reader up. Not an Exception: a reader must not catch it."""


class Writes:
    """Every file that this process opens for writing, removes or renames, while one looks on."""

    watching = False
    elsewhere: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    @classmethod
    def hear(cls, event: str, arguments: tuple[object, ...]) -> None:
        if not cls.watching or event not in EVENTS:
            return
        if event == "open":
            _, mode, flags = arguments
            writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not (writing or (isinstance(mode, str) and set(mode) & set("wax+"))):
                return
        path = arguments[0]
        if isinstance(path, str | bytes | Path):
            place = os.path.realpath(os.fsdecode(path))
            if place != os.devnull and not place.startswith(cls.allowed):
                cls.elsewhere += (f"{event} {place}",)


EVENTS = {
    "open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
    "os.truncate", "shutil.rmtree", "shutil.copyfile", "shutil.move", "os.system",
    "subprocess.Popen", "os.exec", "os.posix_spawn",
}  # fmt: skip
sys.addaudithook(Writes.hear)


@contextmanager
def watched(*allowed: Path) -> Iterator[None]:
    """No file is made, changed or removed outside these folders, and no program started."""
    Writes.allowed = tuple(os.path.realpath(folder) for folder in allowed)
    Writes.elsewhere, Writes.watching = (), True
    try:
        yield
    finally:
        Writes.watching = False
    assert not Writes.elsewhere


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """TooSlow unless what is inside ends in time; on the main thread."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds} s")

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE),
    )
    before = {number: signal.signal(number, late) for number, _, _ in timers}
    for _, timer, limit in timers:
        # Not once: a reader in C that looks at signals late is told again.
        signal.setitimer(timer, limit, 1.0)
    try:
        yield
    finally:
        for number, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


class Inputs:
    """How many inputs were read, and how many of them were refused."""

    num = 0
    num_refused = 0


def read(reader: Callable[[], object], *allowed: Path) -> str | None:
    """Read one hostile input; the sentence when it is refused, None when a value came back.

    Anything but a value or a GiftError of one printable line is the test's failure.
    """
    Inputs.num += 1
    logging.disable(logging.CRITICAL)  # a torn output is logged and made again
    try:
        with (
            within(SECONDS),
            watched(*allowed),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            reader()
    except GiftError as error:
        Inputs.num_refused += 1
        sentence = str(error)
        assert sentence
        assert sentence.isprintable()
        assert len(sentence) <= MAX_CHARACTERS
        assert "Traceback" not in sentence
        return sentence
    finally:
        logging.disable(logging.NOTSET)
    return None


def inputs(number: int) -> Any:  # noqa: ANN401 - a decorator of hypothesis
    """So many inputs, the same ones each time unless hypothesis is told otherwise."""
    is_usual = settings.get_current_profile_name() != "more"
    return settings(
        max_examples=number if is_usual else 10 * number,
        deadline=None,
        database=None,
        derandomize=is_usual,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
