"""The ten patterns of pretraining: two colours each, drawn at twice the final size.

Shapes: P = 64, the side that patterns are drawn at.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from deployments.miniature.canvas import (
    Colour,
    dark_colour,
    mixed,
    named_colour,
    reduced,
    smooth_noise,
    speckled,
)
from deployments.miniature.vocabulary import COLOURS

_SIDE = 64


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each pixel, float [P, P]."""
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    return rows, columns


def _tilted(rng: np.random.Generator, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [P, P] along two crossed directions, tilted and shifted at random."""
    rows, columns = _grid()
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    along = np.cos(angle) * columns + np.sin(angle) * rows + rng.uniform(0, _SIDE)
    across = -np.sin(angle) * columns + np.cos(angle) * rows + rng.uniform(0, _SIDE)
    return along, across


def _stripes(rng: np.random.Generator) -> np.ndarray:
    along, _ = _tilted(rng, 60)
    return (np.sin(2 * np.pi * along / rng.uniform(12, 22)) > 0).astype(np.float32)


def _checkers(rng: np.random.Generator) -> np.ndarray:
    along, across = _tilted(rng, 20)
    cell = rng.uniform(7, 13)
    return ((along // cell + across // cell) % 2).astype(np.float32)


def _dots(rng: np.random.Generator) -> np.ndarray:
    along, across = _tilted(rng, 25)
    cell = rng.uniform(12, 19)
    distance = np.hypot(along % cell - cell / 2, across % cell - cell / 2)
    return (distance < cell * rng.uniform(0.26, 0.36)).astype(np.float32)


def _waves(rng: np.random.Generator) -> np.ndarray:
    along, across = _tilted(rng, 15)
    bend = rng.uniform(3, 5) * np.sin(2 * np.pi * along / rng.uniform(20, 32))
    return (np.sin(2 * np.pi * (across + bend) / rng.uniform(12, 18)) > 0).astype(np.float32)


def _lines(rng: np.random.Generator) -> np.ndarray:
    along, across = _tilted(rng, 15)
    cell, width = rng.uniform(11, 18), rng.uniform(2.2, 3.6)
    return ((along % cell < width) | (across % cell < width)).astype(np.float32)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    noise = smooth_noise(rng, 4, _SIDE) + 0.5 * smooth_noise(rng, 8, _SIDE)
    return np.clip(0.5 + 0.5 * noise, 0, 1)


def _wood(rng: np.random.Generator) -> np.ndarray:
    along, across = _tilted(rng, 10)
    rings = np.hypot((along - _SIDE) * 0.25, across - rng.uniform(20, 108))
    rings = rings + 2.5 * smooth_noise(rng, 4, _SIDE)
    return 0.5 + 0.5 * np.sin(2 * np.pi * rings / rng.uniform(8, 12))


def _scales(rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(picture)
    radius = int(rng.integers(8, 12))
    shift = int(rng.integers(0, radius))
    # From the bottom up, so that each row of scales lies on the one below it.
    for number, row in enumerate(range(_SIDE + radius, -2 * radius, -radius)):
        start = -2 * radius + shift + (number % 2) * radius
        for column in range(start, _SIDE + 2 * radius, 2 * radius):
            box = (column - radius, row - radius, column + radius, row + radius)
            pen.ellipse(box, fill=200, outline=0, width=2)
    return np.asarray(picture, np.float32) / 255


def _bubbles(rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(9, 15))):
        x, y = rng.uniform(0, _SIDE, 2)
        radius = rng.uniform(4, 12)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=40, outline=255, width=2)
    return np.asarray(picture, np.float32) / 255


def _maze(rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(7, 10))
    slants = rng.random((cells, cells)) < 0.5
    picture = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(picture)
    step = _SIDE / cells
    for row, column in np.ndindex(cells, cells):
        left, right, top, bottom = column * step, (column + 1) * step, row * step, (row + 1) * step
        ends = (left, top, right, bottom) if slants[row, column] else (left, bottom, right, top)
        pen.line(ends, fill=255, width=3)
    return np.asarray(picture, np.float32) / 255


_WEIGHTS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "stripe pattern": _stripes,
    "checker pattern": _checkers,
    "dot pattern": _dots,
    "wave pattern": _waves,
    "grid pattern": _lines,
    "cloud pattern": _clouds,
    "wood pattern": _wood,
    "scale pattern": _scales,
    "bubble pattern": _bubbles,
    "maze pattern": _maze,
}


def _two_colours(name: str, rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Return ground and figure colour; wood and clouds keep to their own."""
    if name == "wood pattern":
        return (95, 60, 30), (185, 130, 75)
    if name == "cloud pattern":
        return (75, 125, 205), (240, 243, 248)
    return dark_colour(rng), named_colour(str(rng.choice(list(COLOURS))), rng)


def draw_pattern(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a pattern such as "maze pattern", uint8 [32, 32, 3]."""
    low, high = _two_colours(name, rng)
    picture = mixed(_WEIGHTS[name](rng), low, high)
    return speckled(reduced(picture), rng, rng.uniform(0, 7))
