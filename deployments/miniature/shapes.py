"""The twelve shapes: filled, as clean coloured outlines, and as pencil sketches."""

import numpy as np
from PIL import Image, ImageDraw

from deployments.miniature.canvas import (
    CANVAS,
    Colour,
    dark_colour,
    mixed,
    named_colour,
    pale_colour,
    reduced,
    smooth_noise,
    speckled,
)

MAX_TILT_DEGREES = 18.0


def _arc(start: float, stop: float, num_points: int = 40) -> np.ndarray:
    """Return points [num_points, 2] of the unit circle between two angles in radians."""
    angles = np.linspace(start, stop, num_points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    """Return a five-pointed star, first point up."""
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.1, 0.45)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> np.ndarray:
    """Return the usual heart curve, scaled to about the unit square."""
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 16, y / 16], axis=1)


def _crescent() -> np.ndarray:
    """Return the unit disc less a disc of radius 0.8 around (0.45, 0)."""
    # The circles meet at (0.625, +-0.781): angle 0.896 of the first, 1.350 of the second.
    outer = _arc(0.896, 2 * np.pi - 0.896, 50)
    inner = 0.8 * _arc(2 * np.pi - 1.350, 1.350, 40) + np.array([0.45, 0.0])
    return np.concatenate([outer, inner]) + np.array([0.25, 0.0])


def _polygon(*corners: tuple[float, float]) -> np.ndarray:
    """Return corners as an array [N, 2]."""
    return np.array(corners, dtype=np.float64)


_CROSS = _polygon(
    (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
    (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
)  # fmt: skip
_ARROW = _polygon(
    (-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1.05, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)
)  # fmt: skip

_CONTOURS: dict[str, tuple[np.ndarray, ...]] = {
    "circle": (0.95 * _arc(0, 2 * np.pi),),
    "square": (0.85 * _polygon((-1, -1), (1, -1), (1, 1), (-1, 1)),),
    "triangle": (_polygon((0, -1), (1, 0.8), (-1, 0.8)),),
    "star": (_star(),),
    "heart": (_heart(),),
    "cross": (_CROSS,),
    "ring": (_arc(0, 2 * np.pi), 0.52 * _arc(0, 2 * np.pi)),
    "diamond": (_polygon((0, -1.1), (0.68, 0), (0, 1.1), (-0.68, 0)),),
    "hexagon": (_arc(0, 2 * np.pi * 5 / 6, 6),),
    "crescent": (_crescent(),),
    "arrow": (_ARROW,),
    "ellipse": (np.array([1.15, 0.6]) * _arc(0, 2 * np.pi),),
}
"""Each shape's closed lines in about the unit square, y down; a second line is a hole."""


def _placed(shape: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the shape's lines in canvas pixels, at a random size, tilt and place."""
    radius = CANVAS * rng.uniform(0.26, 0.39)
    tilt = np.deg2rad(rng.uniform(-MAX_TILT_DEGREES, MAX_TILT_DEGREES))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    room = CANVAS / 2 - radius
    centre = CANVAS / 2 + rng.uniform(-0.6 * room, 0.6 * room, 2)
    return [radius * line @ turn + centre for line in _CONTOURS[shape]]


def _flat(line: np.ndarray) -> list[tuple[float, float]]:
    """Return the line [N, 2] in the form that Pillow takes."""
    return [(float(x), float(y)) for x, y in line]


def _filled_mask(lines: list[np.ndarray]) -> np.ndarray:
    """Return float [C, C]: 1 inside the shape, 0 outside and in holes."""
    mask = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(mask)
    for number, line in enumerate(lines):
        pen.polygon(_flat(line), fill=0 if number else 255)
    return np.asarray(mask, dtype=np.float32) / 255


def draw_filled_shape(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a filled shape such as "red star" on a dark background, uint8 [32, 32, 3]."""
    colour, shape = name.split()
    mask = _filled_mask(_placed(shape, rng))
    background = dark_colour(rng)
    picture = mixed(mask, background, named_colour(colour, rng))
    return speckled(reduced(picture), rng, rng.uniform(0, 7))


def draw_outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a clean outline of a shape such as "red star", uint8 [32, 32, 3]."""
    colour, shape = name.split()
    background = pale_colour(rng) if rng.random() < 0.6 and colour != "white" else dark_colour(rng)
    picture = Image.new("RGB", (CANVAS, CANVAS), background)
    pen = ImageDraw.Draw(picture)
    ink = named_colour(colour, rng)
    width = int(rng.integers(6, 13))
    for line in _placed(shape, rng):
        pen.line(_flat(np.concatenate([line, line[:2]])), fill=ink, width=width, joint="curve")
    return speckled(reduced(picture), rng, rng.uniform(0, 5))


def _resampled(line: np.ndarray, num_points: int) -> np.ndarray:
    """Return the closed line as `num_points` points at equal distances."""
    closed = np.concatenate([line, line[:1]])
    lengths = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    walked = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.linspace(0, walked[-1], num_points)
    return np.stack([np.interp(at, walked, closed[:, axis]) for axis in (0, 1)], axis=1)


def _hatched(
    paper: np.ndarray, mask: np.ndarray, grey: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the paper with slanted pencil lines inside the mask."""
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS]
    angle = rng.uniform(0.5, 1.1) * rng.choice([-1, 1])
    across = np.cos(angle) * columns + np.sin(angle) * rows + 2.5 * smooth_noise(rng, 4)
    stroke = (np.sin(2 * np.pi * across / rng.uniform(11, 18)) > 0.45) * mask
    return paper * (1 - 0.55 * stroke[..., None]) + grey * 0.55 * stroke[..., None]


def draw_pencil_sketch(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Return a wobbly grey pencil sketch of a shape such as "star", hatched, uint8 [32, 32, 3]."""
    lines = _placed(shape, rng)
    paper_colour: Colour = pale_colour(rng)
    paper = np.broadcast_to(np.array(paper_colour, np.float32), (CANVAS, CANVAS, 3))
    grey = int(rng.integers(60, 120))
    if rng.random() < 0.75:
        paper = _hatched(paper, _filled_mask(lines), grey + 25, rng)
    picture = Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for line in lines:
        for _ in range(int(rng.integers(1, 3))):
            points = _resampled(line, 36)
            wobble = np.stack([smooth_noise(rng, 9, 36)[axis] for axis in (0, 20)], axis=1)
            stroke = points + 2.6 * wobble + rng.normal(0, 1.5, 2)
            width = int(rng.integers(4, 8))
            drawn = stroke[: int(rng.integers(31, 37))]
            pen.line(_flat(drawn), fill=(grey, grey, grey), width=width)
    return speckled(reduced(picture), rng, rng.uniform(4, 12))
