"""The gate: whether a new model may stand where its parent stands, from two rows of accuracies.

All numbers are percent, drops and gains percent points. A rule that is None is not looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import Field

from gift_core.errors import DataError
from gift_core.settings import Settings

_ROUNDING = 1e-9  # percent points: a drop of exactly what is allowed is allowed


class GatePolicy(Settings):
    """What a new model may cost, and what it must bring, to be promoted; empty: everything is."""

    max_drop_per_task: float | None = Field(
        default=None,
        ge=0.0,
        le=100.0,
        description="Largest drop on any task learnt before, in percent points; empty: not looked "
        "at (paper: no gate)",
    )
    max_panel_drop: float | None = Field(
        default=None,
        ge=0.0,
        le=100.0,
        description="Largest drop in zero-shot accuracy on any data set of the panel (held-out "
        "classes), in percent points; empty: not looked at (paper: no gate)",
    )
    max_transfer_drop: float | None = Field(
        default=None,
        ge=0.0,
        le=100.0,
        description="Largest drop of the mean over the tasks not learnt yet, in percent points; "
        "empty: not looked at (paper: no gate)",
    )
    min_gain: float | None = Field(
        default=None,
        ge=-100.0,
        le=100.0,
        description="Smallest gain on the task just learnt, in percent points; empty: not looked "
        "at (paper: no gate)",
    )

    @property
    def is_empty(self) -> bool:
        """Whether no rule is set: every model passes."""
        return all(value is None for value in dict(self).values())


@dataclass(frozen=True)
class Row:
    """Accuracies of one model in percent: on every task in the order of learning, on the panel."""

    tasks: Mapping[str, float]
    panel: Mapping[str, float] = field(default_factory=dict)


class Failure(Settings):
    """One rule that a model broke: on which data set, from what to what, and what was allowed.

    `allowed` is the bound of the rule in percent points: of a drop, or for min_gain of the gain.
    """

    rule: str
    task: str
    before: float
    after: float
    allowed: float

    def __str__(self) -> str:
        """One clause for people: "digits fell from 95.0 to 80.0 % (at most 2 points allowed)"."""
        moved = f"from {self.before:.1f} to {self.after:.1f} %"
        if self.rule == "min_gain":
            return f"{self.task} went {moved} (a gain of at least {self.allowed:g} points asked)"
        return f"{self.task} fell {moved} (at most {self.allowed:g} points allowed)"


class Verdict(Settings):
    """What the gate says of a model: promoted when nothing failed."""

    promoted: bool
    failures: tuple[Failure, ...] = ()


TRANSFER = "tasks not learnt yet"
"""What a failure of max_transfer_drop names in place of one task."""


def judge(policy: GatePolicy, learnt: str, before: Row, after: Row) -> Verdict:
    """Judge the model that learnt the task `learnt` by its row and that of its parent.

    Tasks in front of `learnt` are earlier ones, those behind it are not learnt yet; where there are
    none, their rule has nothing to look at. Raises DataError when the rows do not name the same
    data sets, do not hold `learnt`, or hold a number that is not from 0 to 100.
    """
    _check(learnt, before, after)
    failures = tuple(_failures(policy, learnt, before, after))
    return Verdict(promoted=not failures, failures=failures)


def _failures(policy: GatePolicy, learnt: str, before: Row, after: Row) -> Iterator[Failure]:
    names = list(after.tasks)
    place = names.index(learnt)
    earlier, later = names[:place], names[place + 1 :]
    if policy.max_drop_per_task is not None:
        for name in earlier:
            was, now = before.tasks[name], after.tasks[name]
            yield from _dropped("max_drop_per_task", name, was, now, policy.max_drop_per_task)
    if policy.max_panel_drop is not None:
        for name in after.panel:
            was, now = before.panel[name], after.panel[name]
            yield from _dropped("max_panel_drop", name, was, now, policy.max_panel_drop)
    if policy.max_transfer_drop is not None and later:
        was, now = (_mean(row, later) for row in (before, after))
        yield from _dropped("max_transfer_drop", TRANSFER, was, now, policy.max_transfer_drop)
    if policy.min_gain is not None:
        was, now = before.tasks[learnt], after.tasks[learnt]
        if now - was < policy.min_gain - _ROUNDING:
            yield Failure(
                rule="min_gain", task=learnt, before=was, after=now, allowed=policy.min_gain
            )


def _mean(row: Row, names: list[str]) -> float:
    return sum(row.tasks[name] for name in names) / len(names)


def _dropped(
    rule: str, name: str, before: float, after: float, allowed: float
) -> Iterator[Failure]:
    if before - after > allowed + _ROUNDING:
        yield Failure(rule=rule, task=name, before=before, after=after, allowed=allowed)


def _check(learnt: str, before: Row, after: Row) -> None:
    if list(before.tasks) != list(after.tasks) or set(before.panel) != set(after.panel):
        raise DataError(
            f"gate: the rows name {[*before.tasks, *before.panel]} and "
            f"{[*after.tasks, *after.panel]}; give two rows over the same data sets"
        )
    if learnt not in after.tasks:
        raise DataError(f"gate: no task {learnt!r} in the rows; they hold {list(after.tasks)}")
    for row in (before, after):
        for name, value in (*row.tasks.items(), *row.panel.items()):
            if not 0.0 <= value <= 100.0:
                raise DataError(f"gate: {name} has accuracy {value}; give percent from 0 to 100")
