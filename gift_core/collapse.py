"""Noticing that what the model knew is being lost: its accuracy on replay pairs collapses."""

import math
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from pydantic import Field

from gift_core.errors import Diverged
from gift_core.settings import Settings

NUM_ERRORS = 4.0
"""How many standard errors a fall has to be, so that it is none of the noise of small batches.

Simulated at a constant true accuracy with the default settings and batches of 4, 16 and 64 pairs,
100,000 runs of 1000 steps each: at 30, 60 and 95 % none fired, at that of guessing one in 100,000.
Without this condition 6 to 28 runs in 1000 that guess fired, and 6 in 10,000 at 30 % (4 pairs).
"""


class CollapseSettings(Settings):
    """When a run counts as collapsed."""

    window: int = Field(
        default=20,
        ge=5,
        le=1000,
        description="Steps that a mean replay accuracy is taken over, steps with replay; fewer are "
        "noisier (paper: no such check; 20 steps of 64 pairs notice a model that only guesses "
        "within 20)",
    )
    share: float = Field(
        default=0.25,
        ge=0.0,
        le=0.9,
        description="Stop when the replay accuracy of the last window is below this share of that "
        "of the first window, and by more than their noise; 0 switches it off (paper: no such "
        "check; a quarter is far below what learning costs)",
    )


class CollapseWatch:
    """Compares the replay accuracy of now with that of the start, step by step.

    What it does depends on nothing but the settings and the values seen, in their order: a resumed
    run that shows it the history first goes on as the unbroken one would. A run that starts at 0 or
    by guessing has nothing to lose and is not stopped for it.

    Example:
        >>> watch = CollapseWatch(CollapseSettings())
        >>> watch.see(report.replay_accuracy)
    """

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self._first: _Mean | None = None
        self._last: deque[float] = deque(maxlen=settings.window)

    def see(self, replay_accuracy: float | None) -> None:
        """Look at one step's replay accuracy, in percent; None, a step without replay, is ignored.

        Raises Diverged when the accuracy has collapsed, and again at every value that does not end
        the collapse.
        """
        if replay_accuracy is None or self.settings.share == 0.0:
            return
        self._last.append(replay_accuracy)
        if len(self._last) < self.settings.window:
            return
        now = _mean(self._last)
        if self._first is None:
            self._first = now
        first, share = self._first, self.settings.share
        fall = share * first.value - now.value
        noise = math.hypot(share * first.error, now.error)
        if fall > NUM_ERRORS * noise:
            raise Diverged(
                f"replay accuracy collapsed: {now.value:.1f} % over the last "
                f"{self.settings.window} steps, {first.value:.1f} % over the first, so the model "
                "is losing what it knew; use a smaller learning_rate or a larger weight of "
                "distillation"
            )


class _Mean(NamedTuple):
    """The mean of some values, and its standard error; both in their unit."""

    value: float
    error: float


def _mean(values: Collection[float]) -> _Mean:
    """Sums are exact (fsum), so equal values in another order or window give an equal mean."""
    count = len(values)
    mean = math.fsum(values) / count
    squares = math.fsum((value - mean) ** 2 for value in values)
    return _Mean(mean, math.sqrt(squares / (count - 1) / count))
