"""A comparison as one HTML file, as Markdown, and as numbers."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from gift_core.errors import SettingsError
from tasks.comparison import Compared, shown_metrics
from tasks.figures import FAINT, INK, PALETTE, data_uri, plain_axes, svg_of
from tasks.manifests import canonical_json

FIGURE_METRICS = ("average", "transfer", "last")
OLD_DATA = "uses images of other tasks, which continual learning forbids"


def comparison_figure(rows: Sequence[Compared]) -> bytes:
    """Means as bars and seeds as dots, a panel a metric, as SVG; equal rows give equal bytes."""
    height = 0.6 + 0.27 * len(rows)
    figure = Figure(figsize=(7.6, height))
    for number, metric in enumerate(FIGURE_METRICS):
        axes = figure.add_axes((0.15 + 0.285 * number, 0.3 / height, 0.255, 1 - 0.6 / height))
        for place, row in enumerate(rows):
            mean = row.mean(metric)
            if mean is None:
                continue
            colour = FAINT if row.keeps_old_data else PALETTE[0]
            axes.barh(place, mean, height=0.6, color=colour, alpha=0.55)
            values = row.metrics[metric]
            axes.plot(values, [place] * len(values), "o", color=INK, markersize=2.6)
            axes.text(1.0, place, f"{mean:.1f}", va="center", fontsize=6.5, color=INK)
        names = [_plain(row.name) for row in rows] if number == 0 else ["" for _ in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_title(f"{metric.capitalize()}, %", fontsize=8, color=INK, loc="left")
        plain_axes(axes, grid="x")
    return svg_of(figure)


def comparison_markdown(rows: Sequence[Compared]) -> str:
    """A table with mean and deviation over seeds, and notes on what breaks the rules."""
    metrics = shown_metrics(rows)
    lines = [
        f"| percent | {' | '.join(metric.capitalize() for metric in metrics)} |",
        f"| --- |{' --- |' * len(metrics)}",
    ]
    lines += [
        f"| {_marked(row).replace('|', '/')} | {' | '.join(row.shown(m) for m in metrics)} |"
        for row in rows
    ]
    return "\n".join([*lines, "", *_notes(rows), ""])


def comparison_html(name: str, rows: Sequence[Compared]) -> str:
    """The page: picture, table, notes; everything in one file, nothing asked of anybody."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    metrics = shown_metrics(rows)
    return environment.get_template("comparison.html.j2").render(
        name=name,
        picture=data_uri(comparison_figure(rows)),
        metrics=metrics,
        rows=[(_marked(row), row) for row in rows],
        best={metric: _best(rows, metric) for metric in metrics},
        notes=_notes(rows),
    )


def write_comparison(folder: Path, name: str, rows: Sequence[Compared]) -> Path:
    """Write comparison.html, .md and .json to a folder; the path of the page.

    SettingsError where the folder cannot be written.
    """
    numbers = [row.model_dump(mode="json") for row in rows]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "comparison.html"
        page.write_text(comparison_html(name, rows), encoding="utf-8")
        (folder / "comparison.md").write_text(comparison_markdown(rows), encoding="utf-8")
        (folder / "comparison.json").write_bytes(canonical_json(numbers) + b"\n")
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
    return page


def _marked(row: Compared) -> str:
    return f"{row.name} *" if row.keeps_old_data else row.name


def _notes(rows: Sequence[Compared]) -> list[str]:
    """How to read it: the seeds, and who keeps old data."""
    seeds = {row.seeds for row in rows}
    told = ", ".join(str(seed) for seed in rows[0].seeds) if len(seeds) == 1 else "differ by row"
    notes = [
        f"Mean and standard deviation (n - 1) over seeds: {told}. "
        "Forgetting: lower is better; elsewhere higher."
    ]
    if any(row.keeps_old_data for row in rows):
        notes.append(f"* {OLD_DATA}.")
    return notes


def _best(rows: Sequence[Compared], metric: str) -> Compared | None:
    """The best of those that keep no old data."""
    fair = [row for row in rows if not row.keeps_old_data and row.mean(metric) is not None]
    pick = min if metric == "forgetting" else max
    return pick(fair, key=lambda row: row.mean(metric) or 0.0) if fair else None


def _plain(name: str) -> str:
    return name[:24].replace("$", r"\$")
