"""Which generated pictures are no pictures: black, flat, or flagged by the safety checker."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gift_core.prompts import MAX_TRIES
from gift_core.settings import Settings

Blemish = Literal["unsafe", "black", "flat"]


class Cleaning(Settings):
    """Which pictures are made anew, from the next seed of their prompt."""

    min_deviation: float = Field(
        default=1.0,
        ge=0,
        le=128,
        description="Grey levels (of 255): a picture whose standard deviation is below this in "
        "every colour is flat; 0: only pictures of one colour are (released code: it looks for "
        "black ones alone)",
    )
    max_tries: int = Field(
        default=10,
        ge=1,
        le=MAX_TRIES,
        description="Seeds tried for a pair before the stage gives up; 1: none is replaced "
        "(released code: black pictures are dropped, not replaced)",
    )


def blemish(image_HWC: NDArray[np.uint8], flagged: bool, cleaning: Cleaning) -> Blemish | None:
    """Say what is wrong with a picture, uint8 (H, W, 3); None for a good one.

    `flagged` is the safety checker's word. It comes first, because the checker blackens what it
    flags. A colour's deviation is taken over the pixels, so a picture of one colour has none.
    """
    if flagged:
        return "unsafe"
    if not image_HWC.any():
        return "black"
    deviation = float(image_HWC.std(axis=(0, 1), dtype=np.float64).max())
    return "flat" if deviation < cleaning.min_deviation or deviation == 0.0 else None
