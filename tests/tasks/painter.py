"""A generator at the border: a noisy grey level a seed, and bad pictures where they are wanted."""

from collections.abc import Callable, Sequence

import numpy as np

from tasks.models.generators import Pictures

SIDE = 8


def painted(seed: int) -> np.ndarray:
    """A level in columns, so that it is no flat picture, and another one for each seed."""
    image = np.full((SIDE, SIDE, 3), 1 + seed % 200, dtype=np.uint8)
    image[:, ::2] += 40
    return image


class Painter:
    """Paints every seed; `spoil` says of a seed whether it comes out "black", "flat", "unsafe"."""

    identity = "painter@1"

    def __init__(self, spoil: Callable[[int], str | None] = lambda seed: None) -> None:
        self.spoil = spoil
        self.calls: list[tuple[str, ...]] = []
        self.seeds: list[int] = []

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        self.calls.append(tuple(prompts))
        self.seeds += seeds
        faults = [self.spoil(seed) for seed in seeds]
        level = {"black": 0, "unsafe": 0, "flat": 77}
        images = [
            np.full((SIDE, SIDE, 3), level[fault], dtype=np.uint8) if fault else painted(seed)
            for fault, seed in zip(faults, seeds, strict=True)
        ]
        return Pictures(images, [fault == "unsafe" for fault in faults])
