"""Which pictures are no pictures, and which are only dark or plain."""

import numpy as np
import pytest

from gift_core.cleaning import Cleaning, blemish


def noise(low: int, high: int) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.integers(low, high, (16, 16, 3), dtype=np.uint8)


def plain(*colour: int) -> np.ndarray:
    return np.full((16, 16, 3), colour, dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "flagged", "found"),
    [
        (noise(0, 255), False, None),
        (noise(0, 5), False, None),  # dark, but something is there
        (noise(0, 255), True, "unsafe"),
        (plain(0, 0, 0), True, "unsafe"),  # the checker blackens what it flags
        (plain(0, 0, 0), False, "black"),
        (plain(250, 0, 0), False, "flat"),  # colours differ, but no pixel from another
        (noise(120, 122), False, "flat"),  # a deviation of half a grey level
    ],
)
def test_what_is_wrong(image: np.ndarray, flagged: bool, found: str | None) -> None:
    assert blemish(image, flagged, Cleaning()) == found


def test_the_bound_is_a_setting() -> None:
    """Half of the pixels at 120, half at 128: a deviation of 4 grey levels."""
    halves = plain(120, 120, 120)
    halves[:8] = 128
    assert blemish(halves, False, Cleaning(min_deviation=3.9)) is None
    assert blemish(halves, False, Cleaning(min_deviation=4.1)) == "flat"
    assert blemish(noise(120, 122), False, Cleaning(min_deviation=0)) is None
    assert blemish(plain(9, 9, 9), False, Cleaning(min_deviation=0)) == "flat"


def test_one_pixel_is_enough_where_nothing_is_asked() -> None:
    image = plain(0, 0, 0)
    image[3, 3, 2] = 1
    assert blemish(image, False, Cleaning(min_deviation=0)) is None
