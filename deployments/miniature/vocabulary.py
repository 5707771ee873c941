"""Every name of the miniature world, and the sentences that they stand in.

The world has one rule: a held-out concept (`HELD_OUT`) is a pair of a known colour and a known
shape that no pretraining picture ever shows together.
"""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (245, 140, 20),
    "yellow": (240, 220, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "purple": (140, 50, 190),
    "pink": (250, 150, 200),
    "white": (245, 245, 245),
}
"""Colour words and their 8-bit RGB."""

SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "diamond",
    "hexagon",
    "crescent",
    "arrow",
    "ellipse",
)

PATTERNS: tuple[str, ...] = tuple(
    f"{word} pattern"
    for word in (
        "stripe",
        "checker",
        "dot",
        "wave",
        "grid",
        "cloud",
        "wood",
        "scale",
        "bubble",
        "maze",
    )
)

MATERIALS: tuple[str, ...] = (
    "brick",
    "grass",
    "gravel",
    "coins",
    "moon",
    "page",
    "galaxy",
    "tissue",
    "fur",
    "retina",
)

DIGITS: tuple[str, ...] = tuple("0123456789")

# No "a": it is the article, and a word has one token. No "i", "j", "o", "q", "v": too like others.
LETTERS: tuple[str, ...] = tuple("bcdefghklmnprstuwxyz")
SIGN_LETTERS: tuple[str, ...] = tuple("bcefghkmnprstxyz")


def _coloured_shapes() -> tuple[str, ...]:
    """Return names of all coloured shapes, shape by shape."""
    return tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)


def _held_out() -> tuple[str, ...]:
    """Return two colours a shape, three shapes a colour: none is rarer than another."""
    colours = tuple(COLOURS)
    return tuple(
        f"{colours[(3 * row + shift) % len(colours)]} {shape}"
        for row, shape in enumerate(SHAPES)
        for shift in (0, 4)
    )


PRETRAINING: tuple[str, ...] = _coloured_shapes() + PATTERNS
"""The 106 classes of the mini ImageNet: 96 coloured shapes and 10 patterns."""

HELD_OUT: tuple[str, ...] = _held_out()
"""The 24 coloured shapes that pretraining never shows."""

SEEN: tuple[str, ...] = tuple(name for name in PRETRAINING if name not in HELD_OUT)
"""The 82 classes that pretraining shows."""

TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a {}.",
)
"""Templates of the pretraining classes."""

TASK_CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": DIGITS,
    "photos": MATERIALS,
    "sketches": SHAPES,
    "signs": SIGN_LETTERS,
}
"""Class names of the four tasks, in the order of their labels."""

TASK_TEMPLATES: dict[str, tuple[str, ...]] = {
    "digits": ("a photo of the handwritten digit {}.",),
    "photos": ("a photo of {}.",),
    "sketches": ("a sketch of a {}.",),
    "signs": ("a worn sign with the letter {}.",),
}
"""Templates of the four tasks."""

PANEL_CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "pretraining": PRETRAINING,
    "held-out": PRETRAINING,
}
"""Class names of the two test panels: held-out concepts compete with all 106 names."""

CONTEXT_LENGTH = 14
"""Tokens of a prompt, start and end included."""


def words() -> tuple[str, ...]:
    """Return all words of the world, sorted: the vocabulary of both tokenizers."""
    sentences = [
        *(template.replace("{}", " ") for template in TEMPLATES),
        *(template.replace("{}", " ") for group in TASK_TEMPLATES.values() for template in group),
        *PRETRAINING,
        *MATERIALS,
        *DIGITS,
        *LETTERS,
    ]
    return tuple(sorted({word for text in sentences for word in text.replace(".", " . ").split()}))
