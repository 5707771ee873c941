"""What lies on this machine, and what a run would do, as tables for a terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from tasks.data_report import Finding


def data_table(findings: Sequence[Finding]) -> Table:
    """One row a split: what is used, what lies there and must lie there, its digest."""
    table = Table(title="used: after classes, shots and held_out are chosen", title_justify="left")
    table.add_column("data set")
    table.add_column("split")
    for name in ("used", "images", "expected", "classes", "expected"):
        table.add_column(name, justify="right")
    table.add_column("digest")
    table.add_column("", min_width=5)
    for each in findings:
        for split in each.splits:
            table.add_row(
                escape(each.name),
                split.name,
                f"{split.num_used:,}",
                f"{split.num_images:,}",
                _or_dash(split.expected_images),
                f"{split.num_classes:,}",
                _or_dash(split.expected_classes),
                split.digest[:12],
                "[bold]wrong[/bold]" if split.complaint else "ok",
            )
        if not each.splits:
            table.add_row(escape(each.name), *["-"] * 7, "[bold]wrong[/bold]")
    return table


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
