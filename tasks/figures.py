"""Records to pictures: SVG for curves and bars, PNG for sheets of small images.

Every figure is drawn on its own canvas (no pyplot), and equal records give equal bytes. Lines
differ in colour, dash and marker, so that they stay apart in greyscale and for colour-blind eyes,
and are named where they end, not in a legend.
"""

import base64
import io
import math
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from tasks.images import encode_png
from tasks.manifests import BlockDrift
from tasks.progress import duration

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#A3508A", "#3A3A3A", "#B07D00", "#4BA3D6")
"""Okabe and Ito's colour-blind safe set; yellow left out, purple and orange darkened for paper."""

DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT, RULE = "#22272e", "#6b7480", "#dde1e6"
PALE, DARK = (0.96, 0.97, 0.98), (0.49, 0.72, 0.87)
"""Red, green and blue of 0 and 100 percent in an accuracy matrix; ink is read on both."""
WIDTH = 7.6
PAGE_FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif"

Picture = Image.Image | NDArray[np.uint8]

_STYLE: Any = {
    "svg.hashsalt": "gift",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
}
_style_lock = threading.Lock()


def data_uri(data: bytes, mime: str = "image/svg+xml") -> str:
    """Bytes as a `data:` URI, which pages and Prefect's markdown show without a file beside."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def accuracy_figure(
    tasks: Sequence[str],
    rows: Sequence[Sequence[float]],
    panel: Mapping[str, Sequence[float]] | None = None,
) -> bytes:
    """Accuracy over time as SVG: one line a task, with a marker where the task was learnt.

    `rows` are percent, the zero-shot row first; `panel` holds a column of the same length for each
    data set that is only evaluated, drawn in grey.
    """
    figure = Figure(figsize=(WIDTH, 3.1))
    crowded = len(tasks) > 6
    bottom = 0.2 if crowded else 0.1
    axes = figure.add_axes((0.07, bottom, 0.76, 0.96 - bottom))
    ends: list[tuple[float, str, str]] = []
    for number, (name, column) in enumerate((panel or {}).items()):
        axes.plot(column, color=FAINT, linewidth=1.0, linestyle=DASHES[(number + 1) % 4])
        ends.append((column[-1], name, FAINT))
    for number, name in enumerate(tasks):
        colour, dash = PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)]
        column = [row[number] for row in rows]
        axes.plot(column, color=colour, linewidth=1.6, linestyle=dash)
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(number + 1, column[number + 1], color=colour, marker=marker, markersize=6.5)
        ends.append((column[-1], name, colour))
    axes.set_xticks(
        range(len(rows)),
        ["zero-shot", *(f"after {_short(name, 14)}" for name in tasks)],
        rotation=20 if crowded else 0,
        ha="right" if crowded else "center",
    )
    values = [value for line in axes.lines for value in np.ravel(line.get_ydata())]
    low, high = 10 * math.floor((min(values) - 2) / 10), 10 * math.ceil((max(values) + 2) / 10)
    axes.set_ylim(max(-3, low), min(103, high))
    axes.set_xlim(-0.15, len(rows) - 1 + 0.1)
    axes.set_ylabel("accuracy, %", color=FAINT, fontsize=7.5)
    plain_axes(axes)
    _name_lines(axes, ends, len(rows) - 1, points=72 * 3.1 * (0.96 - bottom))
    return svg_of(figure)


def matrix_figure(
    names: Sequence[str],
    tasks: Sequence[str],
    rows: Sequence[Sequence[float]],
    panel: Mapping[str, Sequence[float]] | None = None,
) -> bytes:
    """The accuracy matrix as SVG: a row a model, the zero-shot row first, the darker the better.

    `rows` are percent over all `tasks`, `names` say which model; there may be fewer than tasks. The
    task just learnt is framed, tasks not learnt yet are slanted, the panel stands apart.
    """
    columns = [*tasks, *(panel or {})]
    values = [
        [*row, *(column[number] for column in (panel or {}).values())]
        for number, row in enumerate(rows)
    ]
    width, height = 1.5 + 0.78 * len(columns), 0.34 + 0.3 * len(rows)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((1.45 / width, 0.01, 1 - 1.5 / width, 1 - 0.34 / height))
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            left = x + (0.25 if x >= len(tasks) else 0.0)
            learnt, unseen = x == y - 1, y - 1 < x < len(tasks)
            _cell(axes, left, y, value, frame=learnt, slanted=unseen)
    places = [x + (0.25 if x >= len(tasks) else 0.0) for x in range(len(columns))]
    axes.set_xlim(-0.5, places[-1] + 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(places, [_short(name, 11) for name in columns])
    axes.set_yticks(range(len(names)), [_short(name, 20) for name in names])
    axes.xaxis.tick_top()
    plain_axes(axes, grid=None)
    axes.spines["bottom"].set_visible(False)
    return svg_of(figure)


def _cell(axes: Axes, x: float, y: float, value: float, *, frame: bool, slanted: bool) -> None:
    share = min(100.0, max(0.0, value)) / 100
    colour = tuple(high + (low - high) * share for low, high in zip(DARK, PALE, strict=True))
    edge = INK if frame else "white"
    axes.add_patch(
        Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour, edgecolor=edge, linewidth=1.2)
    )
    axes.text(
        x,
        y,
        f"{value:.1f}",
        ha="center",
        va="center",
        color=INK,
        fontsize=8,
        fontweight="bold" if frame else "normal",
        fontstyle="italic" if slanted else "normal",
    )


def drift_figure(drift: Sequence[BlockDrift]) -> bytes:
    """How far each block moved as SVG: relative distance, and distance weighted by the Fisher."""
    height = 0.55 + 0.19 * max(len(drift), 1)
    figure = Figure(figsize=(WIDTH, height))
    columns = (
        ("Change over norm before, %", [100.0 * block.relative for block in drift]),
        ("Change weighted by the Fisher diagonal", [block.weighted for block in drift]),
    )
    for number, (title, values) in enumerate(columns):
        axes = figure.add_axes((0.25 + 0.39 * number, 0.27 / height, 0.32, 1 - 0.52 / height))
        names = [_short(block.block, 30) if number == 0 else "" for block in drift]
        _bars(axes, names, values, [f"{value:.2g}" for value in values], PALETTE[number])
        axes.set_title(title, fontsize=8, color=INK, loc="left")
        plain_axes(axes, grid="x")
    return svg_of(figure)


def seconds_figure(seconds: Mapping[str, float]) -> bytes:
    """Seconds by stage as SVG: a bar each, with its time and its share at the end."""
    figure = Figure(figsize=(WIDTH, 0.2 + 0.26 * max(len(seconds), 1)))
    axes = figure.add_axes((0.16, 0.02, 0.8, 0.96))
    total = sum(seconds.values()) or 1.0
    labels = [f"{duration(value)}, {100 * value / total:.0f} %" for value in seconds.values()]
    _bars(axes, list(seconds), list(seconds.values()), labels, PALETTE[0])
    plain_axes(axes, grid=None)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return svg_of(figure)


def contact_sheet(images: Sequence[Picture], columns: int, min_side: int = 96) -> bytes:
    """One PNG with all images in rows of `columns`, in the order given, on white.

    Tiny images are enlarged by whole factors (nearest neighbour) to at least `min_side` pixels;
    images of twice that and more are reduced to it.
    """
    tiles = [tile(image, min_side) for image in images or [Image.new("RGB", (1, 1), "white")]]
    gap, used = 4, min(max(columns, 1), len(tiles))
    width = max(picture.width for picture in tiles) + gap
    height = max(picture.height for picture in tiles) + gap
    num_rows = math.ceil(len(tiles) / used)
    sheet = Image.new("RGB", (used * width - gap, num_rows * height - gap), "white")
    for number, picture in enumerate(tiles):
        sheet.paste(picture, (number % used * width, number // used * height))
    return encode_png(sheet)


def tile(image: Picture, min_side: int = 96) -> Image.Image:
    """One image of a contact sheet; see there for its size."""
    picture = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    factor = math.ceil(min_side / min(picture.size))
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    if max(picture.size) >= 2 * min_side:
        picture.thumbnail((min_side, min_side), Image.Resampling.LANCZOS)
    return picture


def svg_of(figure: Figure) -> bytes:
    """Draw as SVG without a date, with text kept as text in the fonts of the page."""
    buffer = io.BytesIO()
    # matplotlib reads salt and fonts from its global settings only: set under a lock, and put back.
    with _style_lock, mpl.rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = re.sub(r"'DejaVu Sans'[^;\"]*", PAGE_FONT, buffer.getvalue().decode("utf-8"))
    return re.sub(r'(?<= d=")[^"]+', _to_hundredths, text).encode("utf-8")


def _to_hundredths(path: re.Match[str]) -> str:
    """Coordinates in points need no more digits than that."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group())


def plain_axes(axes: Axes, grid: Literal["x", "y"] | None = "y", size: float = 7.5) -> None:
    """Keep the axis below and faint rules across the `grid`; labels of `size` points."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(length=0, labelsize=size, colors=INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.6)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], labels: Sequence[str], colour: str
) -> None:
    """Horizontal bars from the top down, each with its label at the end."""
    axes.barh(range(len(values)), values, color=colour, height=0.62)
    axes.set_yticks(range(len(values)), names)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * (max([*values, 0.0]) or 1.0))
    for position, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.text(
            value + 0.01 * axes.get_xlim()[1], position, label, fontsize=7, color=INK, va="center"
        )


def _name_lines(
    axes: Axes, ends: Sequence[tuple[float, str, str]], end: float, points: float
) -> None:
    """Name each line at its end; names that would lie on one another are moved apart."""
    low, high = axes.get_ylim()
    places = _spread([value for value, _, _ in ends], (high - low) * 10.0 / points, high)
    for (value, name, colour), place in zip(ends, places, strict=True):
        text, where = f"{_short(name, 18)}  {value:.1f}", (end + 0.02 * end, place)
        axes.text(*where, text, color=colour, fontsize=7.5, va="center", clip_on=False)


def _spread(values: Sequence[float], gap: float, ceiling: float) -> list[float]:
    """Places near `values`, in order, at least `gap` apart, crowds centred, under `ceiling`."""
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    crowds: list[tuple[float, int]] = []  # centre, number of members
    for index in order:
        centre, size = values[index], 1
        while crowds and centre - crowds[-1][0] < gap * (size + crowds[-1][1]) / 2:
            before, number = crowds.pop()
            centre = (centre * size + before * number) / (size + number)
            size += number
        crowds.append((centre, size))
    places = [middle + gap * (n - (size - 1) / 2) for middle, size in crowds for n in range(size)]
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - gap
    return [places[order.index(index)] for index in range(len(values))]


def _short(name: str, length: int) -> str:
    """Cut a long name; a dollar sign would start a formula in matplotlib."""
    return (name if len(name) <= length else f"{name[: length - 2]}..").replace("$", r"\$")
