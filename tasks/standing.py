"""How a sequence stands: its accuracy matrix after a run or in the middle of one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gift_core.metrics import AccuracyMatrix, Incremental, incremental, summarise
from tasks.manifests import ScoresManifest, SequenceManifest

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Standing:
    """Rows of percent, the zero-shot row first, over all tasks in the order of learning.

    `learnt` are the tasks that have their row; `metrics` are over these alone, empty before the
    first. `panel` has a column of as many numbers as there are rows.
    """

    tasks: tuple[str, ...]
    learnt: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    panel: Mapping[str, tuple[float, ...]]
    metrics: Mapping[str, float | None]

    @property
    def names(self) -> list[str]:
        """What each row is called: zero-shot, after digits, ..."""
        return [ZERO_SHOT, *(f"after {task}" for task in self.learnt)]

    @property
    def mean_of_rows(self) -> list[float]:
        """The mean over all tasks, row by row."""
        return [sum(row) / len(row) for row in self.rows]


def standing_of_run(manifest: SequenceManifest) -> Standing:
    """The standing that a run ended with."""
    return Standing(
        tasks=manifest.tasks,
        learnt=manifest.tasks,
        rows=(manifest.zero_shot, *manifest.matrix),
        panel=manifest.panel,
        metrics=manifest.metrics,
    )


def standing_of_scores(scores: Iterable[ScoresManifest]) -> Standing | None:
    """The standing in the middle of a run, from its rows in any order; None without them."""
    rows = rows_in_order(scores)
    if not rows:
        return None
    tasks = _tasks(rows[0])
    percents = tuple(tuple(score.percent for score in row.tasks) for row in rows)
    learnt = tasks[: len(rows) - 1]
    panel = {
        score.data_set: tuple(row.panel[number].percent for row in rows)
        for number, score in enumerate(rows[0].panel)
    }
    return Standing(tasks, learnt, percents, panel, _metrics(learnt, percents))


def rows_in_order(scores: Iterable[ScoresManifest]) -> list[ScoresManifest]:
    """Rows as they were learnt, the zero-shot row first; what does not continue them is left out.

    That is rows over other data sets than the widest one (of an older sequence file), and rows
    behind a gap.
    """
    by_task: dict[str | None, list[ScoresManifest]] = {}
    for row in scores:
        by_task.setdefault(row.after_task, []).append(row)
    if None not in by_task:
        return []
    widest = max((row for rows in by_task.values() for row in rows), key=lambda r: len(r.tasks))
    data_sets = _tasks(widest), _panel(widest)
    kept: list[ScoresManifest] = []
    for after in (None, *data_sets[0]):
        fitting = [r for r in by_task.get(after, []) if (_tasks(r), _panel(r)) == data_sets]
        if not fitting:
            break
        kept.append(fitting[0])
    return kept


def incremental_of(rows: Sequence[ScoresManifest]) -> Incremental | None:
    """Accuracy over the classes seen after each task, from the rows in order, zero-shot first.

    None where there is no row after a task, or one of a release that did not measure it.
    """
    seen = [row.tasks[:number] for number, row in enumerate(rows)][1:]
    counts = [
        [score.num_correct_seen for score in scores if score.num_correct_seen is not None]
        for scores in seen
    ]
    if not counts or any(len(a) != len(b) for a, b in zip(counts, seen, strict=True)):
        return None
    return incremental(counts, [score.num_images for score in seen[-1]])


def _tasks(row: ScoresManifest) -> tuple[str, ...]:
    return tuple(score.data_set for score in row.tasks)


def _panel(row: ScoresManifest) -> tuple[str, ...]:
    return tuple(score.data_set for score in row.panel)


def _metrics(
    learnt: tuple[str, ...], rows: tuple[tuple[float, ...], ...]
) -> dict[str, float | None]:
    if not learnt:
        return {}
    zero_shot, *after = (row[: len(learnt)] for row in rows)
    return summarise(AccuracyMatrix(learnt, zero_shot, after))
