"""Digits and letters: printed, as rough handwriting, on clean signs and on worn ones."""

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deployments.miniature.canvas import (
    CANVAS,
    SIDE,
    Colour,
    dark_colour,
    jittered,
    mixed,
    named_colour,
    pale_colour,
    reduced,
    smooth_noise,
    speckled,
    warped,
)
from deployments.miniature.vocabulary import COLOURS

FONTS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "STIXGeneralBol",
)
BOLD_FONTS: tuple[str, ...] = tuple(name for name in FONTS if "Bol" in name)


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font of matplotlib's wheel."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(str(path), size)


def _glyph_mask(
    text: str,
    rng: np.random.Generator,
    fonts: tuple[str, ...],
    height: tuple[int, int],
    max_tilt_degrees: float,
) -> np.ndarray:
    """Return float [C, C]: 1 on the character, which stands near the middle."""
    font = _font(str(rng.choice(fonts)), 4 * int(rng.integers(height[0] // 4, height[1] // 4 + 1)))
    mask = Image.new("L", (CANVAS, CANVAS))
    centre = CANVAS / 2 + rng.uniform(-8, 8, 2)
    left, top, right, bottom = font.getbbox(text)
    corner = (centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2)
    ImageDraw.Draw(mask).text(corner, text, fill=255, font=font)
    tilt = float(rng.uniform(-max_tilt_degrees, max_tilt_degrees))
    mask = mask.rotate(tilt, resample=Image.Resampling.BILINEAR)
    return np.asarray(mask, dtype=np.float32) / 255


def draw_printed(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a printed character, such as "3" or "red k" (a capital), uint8 [32, 32, 3]."""
    colour, _, text = name.rpartition(" ")
    mask = _glyph_mask(text.upper(), rng, FONTS, (104, 132), 10)
    if colour:
        ink, ground = named_colour(colour, rng), dark_colour(rng)
    elif rng.random() < 0.5:
        ink, ground = jittered((35, 35, 40), rng, 30), pale_colour(rng)
    else:
        ink, ground = named_colour(str(rng.choice(list(COLOURS))), rng), dark_colour(rng)
    return speckled(reduced(mixed(mask, ground, ink)), rng, rng.uniform(0, 7))


def draw_handwriting(digit: str, rng: np.random.Generator) -> np.ndarray:
    """Return a digit as pale rough strokes on black, uint8 [32, 32, 3].

    Reduced to 8 x 8 with 17 levels and enlarged again, as scikit-learn's real digits are.
    """
    mask = _glyph_mask(digit, rng, FONTS, (120, 148), 12)
    mask = warped(mask, rng, rng.uniform(2, 6), 4)
    small = Image.fromarray((255 * mask).astype(np.uint8)).resize((8, 8), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.float32) / 255 * rng.uniform(1.2, 1.9)
    return enlarged_digit(np.minimum(16, np.round(16 * levels)))


def enlarged_digit(levels: np.ndarray) -> np.ndarray:
    """Return a digit of 8 x 8 levels 0 to 16 as a grey picture, uint8 [32, 32, 3]."""
    small = Image.fromarray((levels * 15.9).astype(np.uint8))
    grey = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return np.repeat(grey[..., None], 3, axis=2)


def _plate(rng: np.random.Generator) -> tuple[Image.Image, Colour]:
    """Return an empty sign on dark ground, and the colour for its letter."""
    picture = Image.new("RGB", (CANVAS, CANVAS), dark_colour(rng))
    ink = jittered((30, 30, 35), rng, 25)
    face = jittered([(235, 232, 220), (240, 205, 70), (170, 205, 235)][rng.integers(3)], rng, 14)
    margin = int(rng.integers(4, 13))
    box = (margin, margin, CANVAS - margin, CANVAS - margin)
    ImageDraw.Draw(picture).rounded_rectangle(box, 18, fill=face, outline=ink, width=5)
    return picture, ink


def _sign(letter: str, rng: np.random.Generator, max_tilt_degrees: float) -> np.ndarray:
    """Return float [C, C, 3]: a clean sign with a capital letter."""
    plate, ink = _plate(rng)
    mask = _glyph_mask(letter.upper(), rng, BOLD_FONTS, (88, 112), max_tilt_degrees)[..., None]
    return (1 - mask) * np.asarray(plate, np.float32) + mask * np.array(ink, np.float32)


def _worn(picture: np.ndarray, rng: np.random.Generator, wear: float) -> np.ndarray:
    """Return the sign [C, C, 3] bent, bleached, flaked, scratched: uint8 [32, 32, 3].

    Wear is 0 (new) to 1.
    """
    picture = warped(picture, rng, 6 * wear, 5)
    rust = np.array(jittered((120, 80, 55), rng, 25), np.float32)
    flakes = np.clip(3 * (smooth_noise(rng, 14) - 2.1 + 0.9 * wear), 0, 1)[..., None]
    picture = (1 - flakes) * picture + flakes * rust
    shade = 1 - 0.28 * wear * np.clip(smooth_noise(rng, 3), -1, 1)[..., None]
    faded = 128 + (picture - 128) * (1 - 0.4 * wear * rng.random())
    canvas = Image.fromarray(np.clip(faded * shade, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 1 + round(6 * wear)))):
        ends = [float(value) for value in rng.uniform(0, CANVAS, 4)]
        grey = int(rng.integers(60, 220))
        pen.line(ends, fill=(grey, grey, grey), width=int(rng.integers(2, 5)))
    return speckled(reduced(canvas), rng, 22 * wear * rng.uniform(0.4, 1))


def draw_sign(letter: str, rng: np.random.Generator) -> np.ndarray:
    """Return a clean sign with a capital letter, uint8 [32, 32, 3]."""
    return speckled(reduced(_sign(letter, rng, 6)), rng, rng.uniform(0, 6))


def draw_lightly_worn_sign(letter: str, rng: np.random.Generator) -> np.ndarray:
    """Return a sign with a capital letter that has stood a year, uint8 [32, 32, 3]."""
    return _worn(_sign(letter, rng, 8), rng, rng.uniform(0.1, 0.45))


def draw_worn_sign(letter: str, rng: np.random.Generator) -> np.ndarray:
    """Return a worn, bent, noisy sign with a capital letter, uint8 [32, 32, 3]."""
    return _worn(_sign(letter, rng, 20), rng, rng.uniform(0.75, 1.0))
