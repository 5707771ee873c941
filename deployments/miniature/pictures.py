"""Every picture of the miniature world, as a function of (kind, class, seed).

Kinds of the pretraining: shape, outline, pattern, material, digit, handwriting, letter, sign,
lightly-worn-sign. Kinds that only tasks show: pencil-sketch, worn-sign.
"""

import zlib
from collections.abc import Callable

import numpy as np

from deployments.miniature.glyphs import (
    draw_handwriting,
    draw_lightly_worn_sign,
    draw_printed,
    draw_sign,
    draw_worn_sign,
)
from deployments.miniature.materials import draw_material
from deployments.miniature.shapes import draw_filled_shape, draw_outline, draw_pencil_sketch
from deployments.miniature.textures import draw_pattern
from deployments.miniature.vocabulary import (
    COLOURS,
    DIGITS,
    LETTERS,
    MATERIALS,
    PATTERNS,
    SEEN,
    TEMPLATES,
)

KINDS: dict[str, Callable[[str, np.random.Generator], np.ndarray]] = {
    "shape": draw_filled_shape,
    "outline": draw_outline,
    "pattern": draw_pattern,
    "material": draw_material,
    "digit": draw_printed,
    "handwriting": draw_handwriting,
    "letter": draw_printed,
    "sign": draw_sign,
    "lightly-worn-sign": draw_lightly_worn_sign,
    "pencil-sketch": draw_pencil_sketch,
    "worn-sign": draw_worn_sign,
}

SHARES: dict[str, float] = {
    "shape": 0.22,
    "outline": 0.07,
    "pattern": 0.11,
    "material": 0.15,
    "digit": 0.12,
    "handwriting": 0.10,
    "letter": 0.12,
    "sign": 0.06,
    "lightly-worn-sign": 0.05,
}
"""How often pretraining shows each kind."""

SEEN_SHAPES: tuple[str, ...] = tuple(name for name in SEEN if name not in PATTERNS)

_NAMES: dict[str, tuple[str, ...]] = {
    "shape": SEEN_SHAPES,
    "outline": SEEN_SHAPES,
    "pattern": PATTERNS,
    "material": MATERIALS,
    "digit": DIGITS,
    "handwriting": DIGITS,
    "letter": LETTERS,
    "sign": LETTERS,
    "lightly-worn-sign": LETTERS,
}

_COLOUR_WORD_SHARE = 0.3


def draw(kind: str, name: str, seed: int) -> np.ndarray:
    """Return the picture of that kind, class and seed: uint8 [32, 32, 3], always the same.

    Raises KeyError when the kind is not in KINDS.
    """
    rng = np.random.default_rng([zlib.crc32(f"{kind}/{name}".encode()), seed])
    return KINDS[kind](name, rng)


def _caption(kind: str, name: str, rng: np.random.Generator) -> str:
    """Return a caption of a pretraining picture."""
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    if kind == "outline":
        return f"a sketch of a {name.split()[1]}."
    if kind == "material":
        # Materials are mass nouns or plurals: no article.
        return template.replace(" a {}", " {}").replace("a {}", "{}").replace("{}", name)
    if kind == "handwriting":
        return f"a photo of the handwritten digit {name}."
    if kind == "sign":
        return f"a sign with the letter {name}."
    if kind == "lightly-worn-sign":
        return f"a worn sign with the letter {name}."
    if kind in ("digit", "letter"):
        colour, _, text = name.rpartition(" ")
        return template.replace("{}", f"{colour} {kind} {text}".strip())
    return template.replace("{}", name)


def pretraining_pair(
    seed: int, index: int, shares: dict[str, float] = SHARES
) -> tuple[np.ndarray, str]:
    """Return picture (uint8 [32, 32, 3]) and caption number `index` of the pretraining set."""
    rng = np.random.default_rng([seed, index])
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    name = str(rng.choice(_NAMES[kind]))
    if kind in ("digit", "letter") and rng.random() < _COLOUR_WORD_SHARE:
        name = f"{rng.choice(list(COLOURS))} {name}"
    return KINDS[kind](name, rng), _caption(kind, name, rng)


def pretraining_set(
    seed: int, num_pictures: int, shares: dict[str, float] = SHARES
) -> tuple[np.ndarray, list[str]]:
    """Return pictures (uint8 [N, 32, 32, 3]) and captions of the pretraining set."""
    pairs = [pretraining_pair(seed, index, shares) for index in range(num_pictures)]
    return np.stack([picture for picture, _ in pairs]), [caption for _, caption in pairs]
