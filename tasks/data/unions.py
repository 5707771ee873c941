"""Splits made of splits: several as one, and an even choice from one."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.splits import ImageBytes, Split

Labelled = tuple[Split, tuple[str, ...]]
"""Images with labels, and the prompt of each label."""


@dataclass(frozen=True)
class _Joined:
    """The images of several splits, one after the other; `stops` are where each ends."""

    parts: tuple[ImageBytes, ...]
    stops: tuple[int, ...]

    def read(self, index: int) -> tuple[bytes, str]:
        part = bisect_right(self.stops, index)
        return self.parts[part].read(index - (self.stops[part - 1] if part else 0))


@dataclass(frozen=True)
class _Chosen:
    """Some images of a split, in an order of their own."""

    images: ImageBytes
    indices: NDArray[np.int64]

    def read(self, index: int) -> tuple[bytes, str]:
        return self.images.read(int(self.indices[index]))


def union_of(parts: Sequence[Labelled]) -> Labelled:
    """All images of several splits, labelled by the prompts of all, none twice, in order.

    Classes of two splits that share a prompt are one class. One split alone is given back as it is,
    when its prompts differ from one another.
    """
    prompts = tuple(dict.fromkeys(prompt for _, own in parts for prompt in own))
    if len(parts) == 1 and len(prompts) == len(parts[0][1]):
        return parts[0]
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    labels = [np.array([row_of[p] for p in own])[split.labels_N] for split, own in parts]
    stops = tuple(np.cumsum([len(split) for split, _ in parts]).tolist())
    images = _Joined(tuple(split.images for split, _ in parts), stops)
    digest = "+".join(split.digest for split, _ in parts)
    return Split(np.concatenate(labels).astype(np.int64), None, images, digest), prompts


def evenly_drawn(split: Split, num_images: int, seed: int) -> Split:
    """At most so many images of a split, its classes in turn, each class in an order by the seed.

    Fewer images are the first of more, so that a memory may shrink and stays what would have been
    drawn for it.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    turn_N = np.empty(len(split), dtype=np.int64)
    for label in np.unique(split.labels_N):
        own = generator.permutation(np.flatnonzero(split.labels_N == label))
        turn_N[own] = np.arange(len(own))
    indices = np.lexsort((split.labels_N, turn_N))[:num_images]
    return Split(
        labels_N=split.labels_N[indices],
        class_names=split.class_names,
        images=_Chosen(split.images, indices),
        digest=f"{split.digest}:{num_images}:{seed}",
    )
