"""The ten materials, drawn: neighbours of the photographs, never copies of them.

Shapes: M = 64, the side that materials are drawn at.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from deployments.miniature.canvas import mixed, reduced, smooth_noise, speckled

_SIDE = 64


def _grey(level: float) -> tuple[int, int, int]:
    """Return a grey of 0 to 255, clipped."""
    value = int(np.clip(level, 0, 255))
    return (value, value, value)


def _brick(rng: np.random.Generator) -> np.ndarray:
    mortar = rng.uniform(165, 220)
    picture = Image.new("RGB", (_SIDE, _SIDE), _grey(mortar))
    pen = ImageDraw.Draw(picture)
    height, length = int(rng.integers(11, 19)), int(rng.integers(24, 40))
    gap = int(rng.integers(2, 5))
    face, red = rng.uniform(70, 125), rng.choice([0, 45])
    for number, row in enumerate(range(-int(rng.integers(0, height)), _SIDE, height)):
        start = -length + int(rng.integers(0, 4)) + (number % 2) * length // 2
        for column in range(start, _SIDE, length):
            level = face + rng.normal(0, 8)
            colour = (int(level + red), int(level), int(level - red / 3))
            pen.rectangle((column, row, column + length - gap, row + height - gap), fill=colour)
    turned = picture.rotate(90 if rng.random() < 0.5 else 0)
    return np.asarray(turned, np.float32) + 6 * smooth_noise(rng, 16, _SIDE)[..., None]


def _grass(rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("RGB", (_SIDE, _SIDE), _grey(rng.uniform(40, 80)))
    pen = ImageDraw.Draw(picture)
    green = rng.choice([0, 35])
    for _ in range(150):
        x, y = rng.uniform(-4, _SIDE + 4, 2)
        angle, length = rng.uniform(0, np.pi), rng.uniform(6, 18)
        level = rng.uniform(40, 210)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        colour = (int(level), int(min(255, level + green)), int(max(0, level - green)))
        pen.line((x, y, *end), fill=colour, width=int(rng.integers(1, 3)))
    return np.asarray(picture, np.float32)


def _gravel(rng: np.random.Generator) -> np.ndarray:
    num_stones = int(rng.integers(40, 90))
    stones = rng.uniform(0, _SIDE, (num_stones, 2))
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    pixels = np.stack([rows, columns], axis=-1).reshape(-1, 1, 2)
    distances = np.linalg.norm(pixels - stones[None], axis=2)
    nearest = np.argmin(distances, axis=1)
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    level = rng.uniform(90, 200, num_stones)[nearest] * np.clip((second - first) / 4, 0.25, 1)
    grey = level.reshape(_SIDE, _SIDE) + 12 * smooth_noise(rng, 20, _SIDE)
    return np.repeat(grey[..., None], 3, axis=2)


def _coins(rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (_SIDE, _SIDE), int(rng.integers(30, 75)))
    pen = ImageDraw.Draw(picture)
    radius = rng.uniform(9, 19)
    step = radius * rng.uniform(2.3, 2.9)
    shift = rng.uniform(0, step, 2)
    for row, column in np.ndindex(8, 8):
        x, y = shift + step * np.array([column - 1, row - 1]) + rng.normal(0, 1.5, 2)
        level = int(rng.integers(125, 200))
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=level, outline=level + 35)
        inner = 0.55 * radius
        pen.ellipse((x - inner, y - inner, x + inner * 0.7, y + inner), fill=level - 30)
    grey = np.asarray(picture, np.float32) + 12 * smooth_noise(rng, 18, _SIDE)
    return np.repeat(grey[..., None], 3, axis=2)


def _moon(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(95, 130) + 8 * smooth_noise(rng, 4, _SIDE) + 3 * smooth_noise(rng, 16, _SIDE)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    for _ in range(int(rng.integers(1, 7))):
        y, x = rng.uniform(0, _SIDE, 2)
        radius = rng.uniform(1.5, 5)
        bump = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
        lit = np.exp(-((rows - y) ** 2 + (columns - x - radius) ** 2) / radius**2)
        grey = grey - 45 * bump + 35 * lit
    return np.repeat(grey[..., None], 3, axis=2)


def _page(rng: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (_SIDE, _SIDE), int(rng.integers(165, 248)))
    pen = ImageDraw.Draw(picture)
    height = int(rng.integers(6, 10))
    for row in range(-int(rng.integers(0, 8)), _SIDE, height + int(rng.integers(4, 9))):
        column = -int(rng.integers(0, 12))
        while column < _SIDE and rng.random() < 0.95:
            for _ in range(int(rng.integers(2, 8))):
                tall = row if rng.random() < 0.3 else row + height // 3
                box = (column, tall, column + 2, row + height)
                pen.rectangle(box, outline=int(rng.integers(20, 90)))
                column += 4
            column += 4
    grey = np.asarray(picture, np.float32) + 10 * smooth_noise(rng, 2, _SIDE)
    return np.repeat(grey[..., None], 3, axis=2)


def _galaxy(rng: np.random.Generator) -> np.ndarray:
    picture = np.full((_SIDE, _SIDE, 3), 12.0, np.float32)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    tints = np.array([[255, 235, 210], [255, 140, 70], [130, 160, 255]], np.float32)
    for _ in range(int(rng.integers(8, 26))):
        y, x = rng.uniform(0, _SIDE, 2)
        tilt = rng.uniform(0, np.pi)
        size = rng.choice([1.0, 1.5, 2.2, 4.0], p=[0.4, 0.35, 0.2, 0.05])
        along = np.cos(tilt) * (columns - x) + np.sin(tilt) * (rows - y)
        across = -np.sin(tilt) * (columns - x) + np.cos(tilt) * (rows - y)
        glow = np.exp(-(along**2 / (2 * size) ** 2 + across**2 / size**2))
        picture += glow[..., None] * tints[rng.integers(3)] * rng.uniform(0.4, 1.2)
    return picture


def _tissue(rng: np.random.Generator) -> np.ndarray:
    noise = smooth_noise(rng, 3, _SIDE)
    streaks = smooth_noise(rng, 10, _SIDE) + 0.5 * smooth_noise(rng, 24, _SIDE)
    brown = mixed(0.5 + 0.35 * streaks, (120, 85, 50), (215, 180, 130))
    pale = mixed(0.5 * (smooth_noise(rng, 12, _SIDE) - 0.6), (225, 222, 228), (110, 120, 175))
    border = np.clip(4 * (noise - rng.uniform(-0.4, 1.0)), 0, 1)[..., None]
    return (1 - border) * brown + border * pale


def _fur(rng: np.random.Generator) -> np.ndarray:
    base = mixed(0.5 + 0.4 * smooth_noise(rng, 3, _SIDE), (140, 90, 60), (205, 165, 140))
    strands = rng.standard_normal((12, 64)).astype(np.float32)
    hair = np.asarray(Image.fromarray(strands).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
    hair = np.asarray(Image.fromarray(hair.copy()).rotate(float(rng.uniform(0, 360))))
    return base + rng.uniform(8, 24) * hair[..., None]


def _retina(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    picture = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 6))):
        points = np.cumsum(rng.normal(rng.normal(0, 5, 2), 3, (16, 2)), axis=0)
        points = points + rng.uniform(8, 56, 2)
        line = [(float(x), float(y)) for x, y in points]
        pen.line(line, fill=int(rng.integers(120, 255)), width=int(rng.integers(1, 4)))
    vessel = np.asarray(picture, np.float32) / 255
    shade = 1 + 0.1 * smooth_noise(rng, 3, _SIDE)
    eye = mixed(0.65 * vessel, (225, 90, 62), (140, 35, 32)) * shade[..., None]
    y, x = rng.uniform(0, _SIDE, 2)
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / rng.uniform(4, 9) ** 2)
    eye = eye + spot[..., None] * np.array([30, 80, 60]) * rng.choice([-1, 1])
    centre = _SIDE / 2 + rng.uniform(-22, 22, 2)
    inside = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(42, 70)
    return eye * inside[..., None]


_MATERIALS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "brick": _brick,
    "grass": _grass,
    "gravel": _gravel,
    "coins": _coins,
    "moon": _moon,
    "page": _page,
    "galaxy": _galaxy,
    "tissue": _tissue,
    "fur": _fur,
    "retina": _retina,
}


def draw_material(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a drawn material such as "gravel", uint8 [32, 32, 3]."""
    return speckled(reduced(_MATERIALS[name](rng)), rng, rng.uniform(0, 6))
