"""Two runs side by side: what their settings differ in, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.dashboard.pages import METRICS
from deployments.dashboard.reading import NotFound, Shelf
from tasks.flat import cut, flat_settings
from tasks.manifests import SequenceManifest
from tasks.standing import Standing, standing_of_run

MAX_CHARACTERS = 240
"""Of a setting's value; a list of a thousand class names is named by its beginning."""

Cell = float | None


@dataclass(frozen=True)
class Difference:
    """A setting that differs; "execution" decides how the work is done, never what comes out."""

    path: str
    left: str | None
    right: str | None

    @property
    def decides(self) -> bool:
        """Whether the outcome can depend on it."""
        return not self.path.startswith(("execution", "baseline"))


@dataclass(frozen=True)
class Change:
    """A metric on both sides; `better` is -1 where less is better."""

    label: str
    left: Cell
    right: Cell
    better: int

    @property
    def points(self) -> Cell:
        """Right less left, in percent points."""
        return None if self.left is None or self.right is None else self.right - self.left


def compare_page(shelf: Shelf, left: str | None, right: str | None) -> dict[str, Any]:
    """Both sides of "name" or "name/<key of a run>"; NotFound for a side that is none."""
    names = shelf.names()
    if not left or not right:
        return {"names": names, "sides": None, "left": left, "right": right}
    sides = [_side(shelf, each) for each in (left, right)]
    standings = [standing_of_run(side) for side in sides]
    return {
        "names": names,
        "left": left,
        "right": right,
        "sides": list(zip((left, right), sides, standings, strict=True)),
        "differences": differences(sides[0].settings, sides[1].settings),
        "changes": changes(sides[0], sides[1]),
        "matrix": matrix_difference(*standings),
    }


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """The settings that are not equal, what decides the outcome first."""
    flat = flat_settings(left), flat_settings(right)
    paths = dict.fromkeys([*flat[0], *flat[1]])
    found = [
        Difference(path, _cut(flat[0].get(path)), _cut(flat[1].get(path)))
        for path in paths
        if flat[0].get(path) != flat[1].get(path) and path != "name"
    ]
    return sorted(found, key=lambda each: not each.decides)


def changes(left: SequenceManifest, right: SequenceManifest) -> list[Change]:
    """The metrics, and the panel after the last task, of both."""
    rows = [
        Change(label, left.metrics.get(name), right.metrics.get(name), better)
        for name, (label, _, better) in METRICS.items()
    ]
    for panel in dict.fromkeys([*left.panel, *right.panel]):
        last = [side.panel[panel][-1] if panel in side.panel else None for side in (left, right)]
        rows.append(Change(f"{panel} after the last task", last[0], last[1], 1))
    return rows


def matrix_difference(left: Standing, right: Standing) -> list[tuple[str, list[tuple[str, Cell]]]]:
    """Right less left in percent points: rows and columns that both have, by their names."""
    columns = [task for task in right.tasks if task in left.tasks]
    before, after = _by_name(left), _by_name(right)
    return [
        (name, [(task, after[name][task] - before[name][task]) for task in columns])
        for name in right.names
        if name in before and columns
    ]


def _by_name(standing: Standing) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(standing.tasks, row, strict=True))
        for name, row in zip(standing.names, standing.rows, strict=True)
    }


def _side(shelf: Shelf, text: str) -> SequenceManifest:
    """The run that "name" (its latest) or "name/key" means."""
    name, _, key = text.partition("/")
    if key:
        run = shelf.run(key)
        if run.name != name:
            raise NotFound(f"No run of {name!r} has the key {key[:16]}.")
        return run
    known = shelf.sequence(name)
    if known.run is None:
        raise NotFound(f"{name} has no finished run yet, so there is nothing to compare.")
    return known.run


def _cut(text: str | None) -> str | None:
    return None if text is None else cut(text, MAX_CHARACTERS)
