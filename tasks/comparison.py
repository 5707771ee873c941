"""What is compared with what: sequence files, or one file whose variants change a base, over seeds.

A grid file names a `base` sequence and its `variants`; each variant is a name and the settings that
it changes. Stages that two sequences have in common are made once, because their keys are equal.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from gift_core.errors import SettingsError
from gift_core.settings import Settings
from tasks.manifests import SequenceManifest
from tasks.sequence import Name, SequenceSettings, StoreSettings
from tasks.setting_errors import settings_error
from tasks.yaml_file import read_mapping

METRICS = ("average", "transfer", "last", "learned", "forgetting")
"""What a comparison shows, the one it is sorted by a reader's eye first."""

REPLACED_WHOLE = ("generator",)
"""Settings of several kinds: a variant that names the kind gives them anew."""

MAX_RUNS = 1000

Seed = Annotated[int, Field(ge=0, lt=10_000)]


class Grid(Settings):
    """A base and what is tried in its place."""

    name: Name = Field(description="Name of the comparison; its page is kept under it")
    base: str = Field(min_length=1, description="A sequence file that every variant starts from")
    seeds: tuple[Seed, ...] = Field(default=(), description="Seeds; empty: the base's own")
    variants: tuple[dict[str, Any], ...] = Field(
        min_length=1, description="name, and the settings of the sequence that it changes"
    )


class Contestant(Settings):
    """One row of a comparison: the same settings on several seeds."""

    name: str
    sequences: tuple[SequenceSettings, ...]


class Compared(Settings):
    """What came of one row; each metric has a number a seed, in percent, in the order of `seeds`.

    `keeps_old_data` says that it used images of other tasks, which continual learning forbids.
    """

    name: str
    method: str
    seeds: tuple[int, ...]
    metrics: dict[str, tuple[float, ...]]
    keeps_old_data: bool = False

    @classmethod
    def of(cls, name: str, manifests: Sequence[SequenceManifest]) -> "Compared":
        """The metrics of a contestant's finished runs, and its panel after the last task."""
        numbers: dict[str, list[float]] = {}
        for manifest in manifests:
            last = {f"{panel} after": values[-1] for panel, values in manifest.panel.items()}
            shown = {metric: manifest.metrics.get(metric) for metric in METRICS} | last
            for metric, value in shown.items():
                if value is not None:
                    numbers.setdefault(metric, []).append(value)
        return cls(
            name=name,
            method=manifests[0].method,
            seeds=tuple(manifest.seed for manifest in manifests),
            metrics={metric: tuple(values) for metric, values in numbers.items()},
            keeps_old_data=any(manifest.keeps_old_data for manifest in manifests),
        )

    def mean(self, metric: str) -> float | None:
        """The mean over seeds; None where the metric does not exist (Transfer of one task)."""
        values = self.metrics.get(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """The sample's standard deviation over seeds (n - 1); None for fewer than two."""
        values = self.metrics.get(metric, ())
        return statistics.stdev(values) if len(values) > 1 else None

    def shown(self, metric: str) -> str:
        """Mean and deviation as text: "73.4 +- 0.5"."""
        mean, deviation = self.mean(metric), self.deviation(metric)
        if mean is None:
            return "-"
        return f"{mean:.1f}" if deviation is None else f"{mean:.1f} +- {deviation:.1f}"


def shown_metrics(rows: Sequence[Compared]) -> list[str]:
    """The metrics that any row has, those of every comparison first."""
    return list(dict.fromkeys(metric for row in rows for metric in row.metrics))


def read_contestants(
    files: Sequence[Path], seeds: Sequence[int], store: StoreSettings | None = None
) -> tuple[str, tuple[Contestant, ...]]:
    """Read sequence files and grids; the comparison's name and its rows, in the order given.

    `seeds` win over those of the files; `store` over theirs. Raises SettingsError with one sentence
    for a file that is wrong and for a name that two rows share.
    """
    over: dict[str, Any] = {} if store is None else {"store": store}
    rows: list[Contestant] = []
    titles = []
    for file in files:
        content = read_mapping(file)
        if "variants" in content:
            grid = _grid(file, content)
            titles.append(grid.name)
            rows += _of_grid(file, grid, seeds, over)
        else:
            titles.append(file.stem)
            rows.append(_contestant(str(file), file.stem, content, seeds, over))
    names = [sequence.name for row in rows for sequence in row.sequences]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"compare: two rows are called {repeated[0]}; give each its own name")
    if len(names) > MAX_RUNS:
        raise SettingsError(f"compare: {len(names)} runs, more than {MAX_RUNS}; compare fewer")
    return "-".join(titles)[:80], tuple(rows)


def _grid(file: Path, content: Mapping[str, object]) -> Grid:
    try:
        return Grid.model_validate(content)
    except ValidationError as error:
        raise settings_error(error, str(file), Grid) from None


def _of_grid(
    file: Path, grid: Grid, seeds: Sequence[int], over: Mapping[str, Any]
) -> list[Contestant]:
    base = read_mapping(Path(grid.base))
    rows = []
    for number, variant in enumerate(grid.variants):
        changes = dict(variant)
        name = changes.pop("name", None)
        if not isinstance(name, str) or not name:
            raise SettingsError(f"{file}: variants.{number}.name: is missing; name the variant")
        merged = {**merge(base, changes), "name": f"{base.get('name')}-{name}"}
        where = f"{file}: variant {name}"
        rows.append(_contestant(where, name, merged, seeds or grid.seeds, over))
    return rows


def _contestant(
    where: str,
    name: str,
    content: Mapping[str, object],
    seeds: Sequence[int],
    over: Mapping[str, Any],
) -> Contestant:
    """The row of a sequence; over several seeds each has a name of its own in the store."""
    try:
        own = SequenceSettings.model_validate({**content, **over})
        sequences = [
            SequenceSettings.model_validate(
                {**content, **over, "name": f"{own.name}-seed-{seed}", "seed": seed}
            )
            for seed in seeds
        ]
    except ValidationError as error:
        raise settings_error(error, where, SequenceSettings) from None
    return Contestant(name=name, sequences=tuple(sequences) or (own,))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them: keys of keys one by one, lists and values whole."""
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        anew = key in REPLACED_WHOLE and isinstance(value, dict) and "kind" in value
        if isinstance(value, dict) and isinstance(before, dict) and not anew:
            merged[key] = merge(before, value)
        else:
            merged[key] = value
    return merged
