"""Pictures are a function of (kind, class, seed), and held-out concepts stay held out."""

import numpy as np
import pytest

from deployments.miniature import vocabulary
from deployments.miniature.pictures import KINDS, SHARES, draw, pretraining_pair, pretraining_set

EXAMPLES = {
    "shape": ("red star", "blue ring"),
    "outline": ("red star", "blue ring"),
    "pattern": ("maze pattern", "wood pattern"),
    "material": ("gravel", "retina"),
    "digit": ("3", "8"),
    "handwriting": ("3", "8"),
    "letter": ("k", "s"),
    "sign": ("k", "s"),
    "lightly-worn-sign": ("k", "s"),
    "pencil-sketch": ("star", "ring"),
    "worn-sign": ("k", "s"),
}


def test_examples_cover_every_kind() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_picture(kind: str) -> None:
    name = EXAMPLES[kind][0]
    first, again = draw(kind, name, 5), draw(kind, name, 5)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_or_class_is_another_picture(kind: str) -> None:
    name, other = EXAMPLES[kind]
    picture = draw(kind, name, 5)
    assert not np.array_equal(picture, draw(kind, name, 6))
    assert not np.array_equal(picture, draw(kind, other, 5))


@pytest.mark.parametrize("name", vocabulary.MATERIALS)
def test_every_material_can_be_drawn(name: str) -> None:
    assert draw("material", name, 1).std() > 1


@pytest.mark.parametrize("name", vocabulary.PATTERNS)
def test_every_pattern_can_be_drawn(name: str) -> None:
    assert draw("pattern", name, 1).std() > 1


def test_held_out_is_two_colours_a_shape_and_three_shapes_a_colour() -> None:
    colours, shapes = zip(*(name.split() for name in vocabulary.HELD_OUT), strict=True)
    assert len(set(vocabulary.HELD_OUT)) == 24
    assert {shapes.count(shape) for shape in vocabulary.SHAPES} == {2}
    assert {colours.count(colour) for colour in vocabulary.COLOURS} == {3}


def test_names_are_counted_right() -> None:
    assert len(vocabulary.PRETRAINING) == len(set(vocabulary.PRETRAINING)) == 106
    assert set(vocabulary.SEEN) | set(vocabulary.HELD_OUT) == set(vocabulary.PRETRAINING)
    assert not set(vocabulary.SEEN) & set(vocabulary.HELD_OUT)


def test_held_out_concepts_are_never_in_the_pretraining() -> None:
    _, captions = pretraining_set(0, 1_500)
    assert not [text for text in captions for name in vocabulary.HELD_OUT if f"{name}." in text]
    # Enough was drawn for the test to mean something: most seen shapes did come up.
    shapes = [name for name in vocabulary.SEEN if name not in vocabulary.PATTERNS]
    came_up = [name for name in shapes if any(f" {name}." in text for text in captions)]
    assert len(came_up) > 0.9 * len(shapes)


def test_pretraining_set_is_the_pairs_one_by_one() -> None:
    pictures, captions = pretraining_set(3, 4)
    picture, caption = pretraining_pair(3, 2)
    np.testing.assert_array_equal(pictures[2], picture)
    assert captions[2] == caption


def test_shares_sum_to_one_and_tasks_are_left_out() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert not {"pencil-sketch", "worn-sign"} & set(SHARES)


def test_vocabulary_holds_every_word_and_no_letter_a() -> None:
    words = set(vocabulary.words())
    _, captions = pretraining_set(1, 500)
    assert {word for text in captions for word in text.replace(".", " . ").split()} <= words
    assert "a" not in vocabulary.LETTERS
    assert set(vocabulary.SIGN_LETTERS) <= set(vocabulary.LETTERS)
