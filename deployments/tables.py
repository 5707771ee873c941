"""Accuracy matrices and metrics as tables for a terminal; names are shown, never obeyed."""

from collections.abc import Sequence

from rich.columns import Columns
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from gift_core.errors import one_line
from tasks.comparison import Compared, shown_metrics
from tasks.manifests import SequenceManifest

SHOWN_METRICS = ("transfer", "average", "last", "learned", "forgetting")


def matrix_table(manifest: SequenceManifest) -> Table:
    """The accuracy matrix in percent, zero-shot row first; what was just learnt is bold."""
    old_data = ", with images of other tasks" if manifest.keeps_old_data else ""
    title = _shown(f"{manifest.name} ({manifest.method}{old_data})")
    table = Table(title=title, title_justify="left")
    table.add_column("percent after")
    panel = dict(sorted(manifest.panel.items()))  # as it is read from a store
    for name in (*manifest.tasks, *panel):
        table.add_column(_shown(name), justify="right")
    rows = [("zero-shot", manifest.zero_shot), *zip(manifest.tasks, manifest.matrix, strict=True)]
    for number, (name, values) in enumerate(rows):
        cells = [
            f"[bold]{value:.1f}[/bold]" if column == number - 1 else f"{value:.1f}"
            for column, value in enumerate(values)
        ]
        beside = [f"{values[number]:.1f}" for values in panel.values()]
        table.add_row(_shown(name), *cells, *beside)
    return table


def metrics_table(manifests: list[SequenceManifest]) -> Table:
    """One column a sequence: its metrics in percent, and the panel after the last task."""
    table = Table()
    table.add_column("percent")
    for manifest in manifests:
        table.add_column(_shown(manifest.name), justify="right")
    for name in SHOWN_METRICS:
        values = [manifest.metrics.get(name) for manifest in manifests]
        table.add_row(name.capitalize(), *("-" if v is None else f"{v:.1f}" for v in values))
    for name in sorted(manifests[0].panel):
        last = (m.panel[name][-1] if name in m.panel else None for m in manifests)
        table.add_row(_shown(f"{name} after"), *("-" if v is None else f"{v:.1f}" for v in last))
    return table


def comparison_table(rows: Sequence[Compared]) -> Table:
    """One row a contestant: mean and standard deviation over its seeds, in percent."""
    metrics = shown_metrics(rows)
    caption = "*: uses images of other tasks" if any(row.keeps_old_data for row in rows) else None
    # Without lines and with narrow numbers, so that it fits a terminal of 80 columns.
    table = Table(caption=caption, caption_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("percent", overflow="fold")
    for metric in metrics:
        heading = _shown(metric.capitalize()).replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        name = f"{row.name} *" if row.keeps_old_data else row.name
        numbers = (row.shown(metric).replace(" +- ", "\u00b1") for metric in metrics)
        table.add_row(_shown(name), *numbers)
    return table


def side_by_side(manifests: list[SequenceManifest]) -> RenderableType:
    """Matrices beside each other where the terminal is wide enough, else one below another."""
    return Columns([matrix_table(manifest) for manifest in manifests], padding=(0, 3))


def _shown(name: str) -> str:
    return escape(one_line(name, 80))
