"""The two tasks of real pictures: scikit-learn's handwriting and scikit-image's photographs.

Both come inside the libraries' wheels: nothing is downloaded.
"""

from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from sklearn.datasets import load_digits

from deployments.miniature.canvas import SIDE
from deployments.miniature.glyphs import enlarged_digit
from deployments.miniature.vocabulary import MATERIALS

Labelled = tuple[np.ndarray, np.ndarray]

DIGIT_SIZES = {"train": 850, "validation": 150, "test": 600}

PHOTO_FILES: dict[str, str] = {
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "coins": "coins.png",
    "moon": "moon.png",
    "page": "page.png",
    "galaxy": "hubble_deep_field.jpg",
    "tissue": "ihc.png",
    "fur": "chelsea.png",
    "retina": "retina.jpg",
}
PATCH_SIDES: dict[str, tuple[int, int]] = {"galaxy": (80, 140), "retina": (240, 360)}
"""Smallest and largest side of a patch, in pixels of the photograph."""
DEFAULT_PATCH_SIDES = (44, 72)

# Bands of a photograph's width. Patches lie wholly inside their band, so no pixel is in two splits.
PHOTO_BANDS = {"train": (0.0, 0.46), "validation": (0.46, 0.66), "test": (0.66, 1.0)}
PHOTOS_A_CLASS = {"train": 70, "validation": 10, "test": 40}


@cache
def handwritten_digits() -> dict[str, Labelled]:
    """Return each split's pictures (uint8 [N, 32, 32, 3]) and labels (int64 [N])."""
    data = load_digits()
    # Two of the 1,797 digits may be the same 8 x 8 levels: keep the first, so splits are disjoint.
    _, first = np.unique(data.images.reshape(len(data.images), -1), axis=0, return_index=True)
    rows = np.random.default_rng(20).permutation(np.sort(first))
    splits, start = {}, 0
    for split, size in DIGIT_SIZES.items():
        chosen = rows[start : start + size]
        pictures = np.stack([enlarged_digit(data.images[row]) for row in chosen])
        splits[split] = (pictures, data.target[chosen].astype(np.int64))
        start += size
    return splits


def _photograph(name: str) -> np.ndarray:
    """Return the class's photograph: uint8 [H, W, 3]."""
    path = Path(skimage.__file__).parent / "data" / PHOTO_FILES[name]
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _patch(
    photograph: np.ndarray, name: str, band: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Return a square patch inside the band, reduced to uint8 [32, 32, 3]."""
    height, width = photograph.shape[:2]
    left, right = round(band[0] * width), round(band[1] * width)
    smallest, largest = PATCH_SIDES.get(name, DEFAULT_PATCH_SIDES)
    side = int(rng.integers(smallest, min(largest, right - left) + 1))
    column = int(rng.integers(left, right - side + 1))
    row = int(rng.integers(0, height - side + 1))
    patch = Image.fromarray(photograph[row : row + side, column : column + side])
    return np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.BOX))


@cache
def photo_patches() -> dict[str, Labelled]:
    """Return each split's pictures (uint8 [N, 32, 32, 3]) and labels (int64 [N]).

    A patch with hardly any light or contrast, such as the black around the retina, is drawn again.
    """
    photographs = [_photograph(name) for name in MATERIALS]
    splits = {}
    for number, (split, band) in enumerate(PHOTO_BANDS.items()):
        pictures, labels = [], []
        for label, name in enumerate(MATERIALS):
            rng = np.random.default_rng([21, number, label])
            for _ in range(PHOTOS_A_CLASS[split]):
                patch = _patch(photographs[label], name, band, rng)
                while name == "retina" and patch.mean() < 60:
                    patch = _patch(photographs[label], name, band, rng)
                pictures.append(patch)
                labels.append(label)
        splits[split] = (np.stack(pictures), np.array(labels, dtype=np.int64))
    return splits
