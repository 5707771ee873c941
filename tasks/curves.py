"""Curves over the steps of a training: losses, accuracies, and what steers the step."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.figures import DASHES, FAINT, INK, PALETTE, WIDTH, plain_axes, svg_of

LOSS_TERMS = {
    "task_loss": "Task",
    "distillation_loss": "Contrastive distillation",
    "alignment_loss": "Image-text alignment",
    "consolidation_loss": "Weight consolidation",
}
ACCURACIES = {"task_accuracy": "task images", "replay_accuracy": "replay pairs"}
STEERING = {"learning_rate": "Learning rate", "gradient_norm": "Gradient norm"}
HEIGHT = 1.75

History = Mapping[str, Sequence[float | None]]


def first_and_last(history: History) -> list[tuple[str, float, float]]:
    """Each loss term's mean over the first and the last tenth of the steps, in nats."""
    tenth = max(1, len(history["step"]) // 10)
    rows = []
    for name, label in LOSS_TERMS.items():
        values = np.asarray(history[name], dtype=np.float64)
        rows.append((label, float(values[:tenth].mean()), float(values[-tenth:].mean())))
    return rows


def loss_figure(history: History) -> bytes:
    """Loss curves as SVG: a small panel for each term of the objective, one for the accuracies.

    A term that is zero throughout is not part of the method and is left out. The line is a mean
    over neighbouring steps, the band behind it goes from their smallest to their largest value.
    """
    steps = np.asarray(history["step"], dtype=np.float64)
    terms = [
        (label, values, colour)
        for (name, label), colour in zip(LOSS_TERMS.items(), PALETTE, strict=False)
        if np.any(np.nan_to_num(values := _column(history, name)))
    ]
    figure = Figure(figsize=(WIDTH, HEIGHT))
    panels = _row_of_axes(figure, len(terms) + 1)
    for axes, (label, values, colour) in zip(panels, terms, strict=False):
        _draw_curve(axes, steps, values, colour)
        axes.set_ylim(bottom=min(0.0, float(np.nanmin(values))))
        axes.set_title(label, fontsize=8, color=INK, loc="left")
    panels[0].set_ylabel("loss, nats", fontsize=7.5, color=FAINT)
    for (name, label), colour, dash in zip(
        ACCURACIES.items(), (INK, PALETTE[0]), DASHES[:2], strict=True
    ):
        _draw_curve(panels[-1], steps, _column(history, name), colour, dash, label)
    panels[-1].set_ylim(0, 103)
    panels[-1].set_title("Batch accuracy, %", fontsize=8, color=INK, loc="left")
    panels[-1].legend(frameon=False, fontsize=6.5, loc="lower right", handlelength=1.8)
    return svg_of(figure)


def steering_figure(history: History) -> bytes:
    """Learning rate and gradient norm as SVG, drawn as the losses are; a skipped step is a gap."""
    steps = np.asarray(history["step"], dtype=np.float64)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    panels = _row_of_axes(figure, len(STEERING))
    for axes, (name, label), colour in zip(panels, STEERING.items(), PALETTE, strict=False):
        _draw_curve(axes, steps, _column(history, name), colour)
        axes.set_ylim(bottom=0.0)
        axes.set_title(label, fontsize=8, color=INK, loc="left")
    return svg_of(figure)


def _row_of_axes(figure: Figure, number: int) -> list[Axes]:
    """Equal panels side by side that share nothing but the meaning of x."""
    left, gap = 0.055, 0.035
    width = (0.995 - left - gap * (number - 1)) / number
    panels = [figure.add_axes((left + n * (width + gap), 0.2, width, 0.65)) for n in range(number)]
    for axes in panels:
        plain_axes(axes, size=6.5)
        axes.set_xlabel("step", fontsize=7, color=FAINT, labelpad=2)
        axes.locator_params(axis="both", nbins=4)
    return panels


def _column(history: History, name: str) -> NDArray[np.float64]:
    """Give a column as floats; what was not measured is NaN."""
    values = history.get(name) or [None] * len(history["step"])
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)


def _draw_curve(
    axes: Axes,
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
    dash: object = "-",
    label: str | None = None,
) -> None:
    """Draw at most 100 points, so that thousands of steps stay readable and small."""
    known = ~np.isnan(values)
    if not known.any():
        return
    pieces = min(100, int(known.sum()))
    centres = [piece.mean() for piece in np.array_split(steps[known], pieces)]
    parts = np.array_split(values[known], pieces)
    lows, highs = [part.min() for part in parts], [part.max() for part in parts]
    axes.fill_between(centres, lows, highs, color=colour, alpha=0.18, linewidth=0)
    means = [part.mean() for part in parts]
    axes.plot(centres, means, color=colour, linewidth=1.1, linestyle=dash, label=label)
