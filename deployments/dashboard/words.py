"""How numbers, times and settings are written on the pages: the filters of the templates."""

from collections.abc import Callable
from datetime import datetime

from gift_core.errors import one_line
from tasks.flat import plain
from tasks.progress import duration

MINUS = "\N{MINUS SIGN}"
LONG_LIST = 12


def percent(value: float | None, digits: int = 1) -> str:
    """A number of percent; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def points(value: float | None, digits: int = 1) -> str:
    """A change with its sign."""
    if value is None:
        return "\N{EN DASH}"
    changed = round(value, digits) != 0
    return f"{value:+.{digits}f}".replace("-", MINUS) if changed else f"{0:.{digits}f}"


def tone(change: float | None, better: int = 1) -> str:
    """Whether a change is good, bad, or too small to tell."""
    if change is None or abs(change) < 0.05:
        return "even"
    return "good" if change * better > 0 else "bad"


def heat(value: float) -> str:
    """The class of a cell of the accuracy matrix: h0 (0 %) to h20 (100 %)."""
    return f"h{round(min(100.0, max(0.0, value)) / 5)}"


def swing(change: float | None) -> str:
    """The class of a cell of a difference: g1 to g5 for more, b1 to b5 for less, by four points."""
    if change is None or abs(change) < 0.05:
        return ""
    return f"{'g' if change > 0 else 'b'}{min(5, 1 + int(abs(change) / 4))}"


def size(num_bytes: int) -> str:
    """Bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"


def moment(text: str) -> str:
    """An ISO time to the minute; what is none is shown as it is, on one line."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return one_line(text, 40)


def brief(text: str, limit: int = 60) -> str:
    """Foreign text on one line, its middle left out where it is long."""
    return one_line(text, limit)


FILTERS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (percent, points, tone, heat, swing, size, moment, brief, plain, duration)
}
