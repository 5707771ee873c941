"""Drawing tools that all pictures share: canvas, colours, noise, warping.

Shapes: C = CANVAS (128), the side that pictures are drawn at before they are reduced to SIDE (32).
"""

import numpy as np
from PIL import Image

from deployments.miniature.vocabulary import COLOURS

SIDE = 32
CANVAS = 128

Colour = tuple[int, int, int]


def jittered(colour: Colour, rng: np.random.Generator, amount: int = 18) -> Colour:
    """Return the colour, each 8-bit channel moved by up to `amount`."""
    moved = np.clip(np.array(colour) + rng.integers(-amount, amount + 1, 3), 0, 255)
    return (int(moved[0]), int(moved[1]), int(moved[2]))


def named_colour(name: str, rng: np.random.Generator) -> Colour:
    """Return a shade of the colour of that name."""
    return jittered(COLOURS[name], rng)


def dark_colour(rng: np.random.Generator) -> Colour:
    """Return a dull dark background: every named colour stands out from it."""
    level = int(rng.integers(15, 80))
    return jittered((level, level, level), rng, 14)


def pale_colour(rng: np.random.Generator) -> Colour:
    """Return a dull pale background, such as paper."""
    level = int(rng.integers(205, 245))
    return jittered((level, level, level), rng, 10)


def smooth_noise(rng: np.random.Generator, cells: int, side: int = CANVAS) -> np.ndarray:
    """Return smooth noise, float32 [side, side], about standard normal, `cells` bumps across."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def warped(picture: np.ndarray, rng: np.random.Generator, pixels: float, cells: int) -> np.ndarray:
    """Return the picture, [C, C] or [C, C, 3], with each pixel taken from about `pixels` away."""
    side = picture.shape[0]
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    rows = np.clip(rows + pixels * smooth_noise(rng, cells, side), 0, side - 1)
    columns = np.clip(columns + pixels * smooth_noise(rng, cells, side), 0, side - 1)
    return picture[rows.round().astype(int), columns.round().astype(int)]


def reduced(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Return the picture at the world's size: uint8 [32, 32, 3]."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def speckled(picture: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Return the uint8 picture with grey noise of standard deviation `amount` (of 255)."""
    noise = rng.normal(0.0, amount, picture.shape[:2])[..., None]
    return np.clip(picture.astype(np.float32) + noise, 0, 255).astype(np.uint8)


def mixed(weight: np.ndarray, low: Colour, high: Colour) -> np.ndarray:
    """Return float [S, S, 3]: `low` where weight [S, S] is 0, `high` where it is 1."""
    weight = np.clip(weight, 0.0, 1.0)[..., None]
    return (1 - weight) * np.array(low, np.float32) + weight * np.array(high, np.float32)
