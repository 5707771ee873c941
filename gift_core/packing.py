"""Texts as a tree of prefixes: what several texts begin with is computed once, padding never.

A causal text tower sees at each position only what stands before it. So the hidden state of "a
photo of a" is the same in every prompt that begins so, and what stands behind the pooled token has
no effect at all. Both are exact: only the order of sums changes.

Shapes: K texts, U distinct ones, L tokens of the longest, N nodes of the tree.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedTexts:
    """K texts as N nodes, each a token at a position with all that stands before it; all int64.

    `tokens_N` and `positions_N` are what a node embeds. `paths_UL` are the nodes of each distinct
    text from its first token to its pooled one (then the pooled one again, as filling), `ends_U`
    the position of the pooled token. `places_N` is one place of each node in `paths_UL`, flat.
    `rows_K` is each text's row among the distinct ones.
    """

    tokens_N: Tensor
    positions_N: Tensor
    paths_UL: Tensor
    ends_U: Tensor
    places_N: Tensor
    rows_K: Tensor

    def to(self, device: torch.device) -> "PackedTexts":
        """Move all of it to a device, without waiting for it."""
        return PackedTexts(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()}
        )


def pack_texts(tokens_KL: Tensor, ends_K: Tensor) -> PackedTexts:
    """Pack token numbers (K, L) whose pooled tokens stand at `ends_K` (K,).

    Both are integer and on the CPU. Equal texts are one text. Source: docs/method.md
    step 1.
    """
    tokens = tokens_KL.numpy()
    ends = ends_K.numpy()
    length = int(ends.max()) + 1
    behind = np.arange(length)[None, :] > ends[:, None]
    cut = np.where(behind, -1, tokens[:, :length])
    distinct, rows = np.unique(cut, axis=0, return_inverse=True)  # sorted: equal prefixes touch
    inside = distinct >= 0
    differs = np.ones_like(inside)
    differs[1:] = np.logical_or.accumulate(distinct[1:] != distinct[:-1], axis=1)
    new = inside & differs
    numbers = np.cumsum(new).reshape(new.shape) - 1
    # Numbers grow from row to row: the largest above is the row that the prefix was first seen in.
    paths = np.maximum.accumulate(np.where(new, numbers, 0), axis=0)
    last = inside.sum(axis=1) - 1
    paths = np.where(inside, paths, paths[np.arange(len(paths)), last][:, None])
    parts = {
        "tokens_N": distinct[new],
        "positions_N": np.nonzero(new)[1],
        "paths_UL": paths,
        "ends_U": last,
        "places_N": np.flatnonzero(new),
        "rows_K": rows.reshape(-1),
    }
    return PackedTexts(
        **{name: torch.from_numpy(part.astype(np.int64)) for name, part in parts.items()}
    )
