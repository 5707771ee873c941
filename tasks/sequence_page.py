"""What Prefect shows of a sequence at any time: matrix, verdict, history, as one text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gift_core.gate import GatePolicy
from tasks.figures import data_uri, matrix_figure
from tasks.manifests import ScoresManifest
from tasks.promote import verdict_rows
from tasks.publishing import Row, code, escaped
from tasks.standing import Standing, rows_in_order, standing_of_scores
from tasks.store.heads import HeadEntry, history_of
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output

MAX_ENTRIES = 20
"""Entries of the history that are shown; `gift log` has them all."""


@dataclass(frozen=True)
class State:
    """A sequence now: its rows, its head's history (newest first), the latest verdict's rows."""

    name: str
    standing: Standing
    history: Sequence[HeadEntry]
    verdict: Sequence[Row]
    refused: bool
    place: str
    report: str | None = None


def state_of(
    store: ObjectStore,
    name: str,
    policy: GatePolicy,
    references: Iterable[str],
    refused: bool,
    report: str | None = None,
) -> State | None:
    """Read how a sequence stands; None before its first row.

    `references` are outputs among which its rows are; `refused` says that the gate did not let the
    latest model pass. Raises StoreError.
    """
    found = (
        find_output(store, ScoresManifest, *reference.split("/"))
        for reference in references
        if reference.startswith("evaluate/")
    )
    rows = rows_in_order([row for row in found if row is not None])
    standing = standing_of_scores(rows)
    if standing is None:
        return None
    history = history_of(store, name)
    verdict = verdict_rows(policy, rows[-2], rows[-1]) if len(rows) > 1 else []
    return State(name, standing, history, verdict, refused, store.url, report)


def sequence_page(state: State) -> str:
    """Lay out the state of a sequence."""
    standing = state.standing
    figure = matrix_figure(standing.names, standing.tasks, standing.rows, standing.panel)
    lines = [
        f"## {escaped(state.name)}",
        "",
        _headline(state),
        "",
        *_metrics(standing),
        f"![accuracy matrix]({data_uri(figure)})",
        "",
        "### Accuracy, percent",
        "",
        *_matrix(standing),
        "",
        *_verdict(state),
        *_history(state.history),
        "",
        f"Store: {code(state.place)}" + (f"; report: {code(state.report)}" if state.report else ""),
    ]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as a table of markdown, numbers to the right; the columns are those of the first."""
    columns = list(rows[0])
    marks = ["---:" if isinstance(rows[0][name], int | float) else "---" for name in columns]
    return [
        _line([escaped(name) for name in columns]),
        _line(marks),
        *(_line([escaped(str(row[name])) for name in columns]) for row in rows),
    ]


def _headline(state: State) -> str:
    learnt, tasks = state.standing.learnt, state.standing.tasks
    words = f"**{len(learnt)} of {len(tasks)} tasks learnt.** "
    head = state.history[0] if state.history else None
    stands = f"entry {head.number}, {head.kind}" if head else "none yet"
    if state.refused:
        return words + (
            f"**The gate refused the model after {escaped(learnt[-1])}**; it is kept, and the head "
            f"stays: {stands}."
        )
    return words + f"The head is {stands}."


def _metrics(standing: Standing) -> list[str]:
    shown = {name: standing.metrics.get(name) for name in ("transfer", "average", "last")}
    if not standing.metrics:
        return []
    return [
        _line([name.capitalize() for name in shown]),
        _line(["---:"] * len(shown)),
        _line(["-" if value is None else f"{value:.2f}" for value in shown.values()]),
        "",
        f"Percent, over {', '.join(escaped(task) for task in standing.learnt)}.",
        "",
    ]


def _matrix(standing: Standing) -> list[str]:
    """A row a model; the task just learnt is bold, tasks not learnt yet are slanted."""
    names = [*standing.tasks, "mean", *standing.panel]
    lines = [_line(["model", *map(escaped, names)]), _line(["---", *["---:"] * len(names)])]
    for number, (name, row) in enumerate(zip(standing.names, standing.rows, strict=True)):
        cells = [
            f"**{value:.2f}**"
            if place == number - 1
            else f"*{value:.2f}*"
            if place >= number
            else f"{value:.2f}"
            for place, value in enumerate(row)
        ]
        panel = [f"{column[number]:.2f}" for column in standing.panel.values()]
        lines.append(_line([escaped(name), *cells, f"{sum(row) / len(row):.2f}", *panel]))
    return lines


def _verdict(state: State) -> list[str]:
    if not state.verdict:
        return []
    task = escaped(state.standing.learnt[-1])
    said = "refused" if state.refused else "let pass"
    return [f"### Verdict on the model after {task}: {said}", "", *table(state.verdict), ""]


def _history(history: Sequence[HeadEntry]) -> list[str]:
    if not history:
        return ["### History", "", "No model was promoted yet."]
    lines = ["### History", "", "| entry | what | model | when | why | by |", f"|{' --- |' * 6}"]
    for entry in history[:MAX_ENTRIES]:
        back = f" to {entry.restored}" if entry.restored else ""
        stage, key = entry.model.output.split("/")
        cells = [
            f"{entry.kind}{back}",
            f"{stage}/{key[:12]}",
            entry.time,
            entry.reason,
            entry.actor,
        ]
        lines.append(_line([str(entry.number), *map(escaped, cells)]))
    older = len(history) - MAX_ENTRIES
    return [*lines, *(["", f"and {older:,} older ones: `gift log`"] if older > 0 else [])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
