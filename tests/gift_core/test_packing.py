"""The tree of prefixes: every text can be read off it, and nothing is in it twice."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift_core.packing import PackedTexts, pack_texts

END = 99
TEXTS = st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=12)


def padded(texts: list[list[int]], length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [[*text, END, *([0] * (length - 1 - len(text)))] for text in texts]
    tokens_KL = torch.tensor(rows)
    return tokens_KL, tokens_KL.argmax(dim=-1)


def read(packed: PackedTexts, row: int) -> list[int]:
    distinct = int(packed.rows_K[row])
    nodes = packed.paths_UL[distinct, : int(packed.ends_U[distinct]) + 1]
    assert packed.positions_N[nodes].tolist() == list(range(len(nodes)))
    return packed.tokens_N[nodes].tolist()


@given(TEXTS)
def test_every_text_can_be_read_off_the_tree(texts: list[list[int]]) -> None:
    packed = pack_texts(*padded(texts))
    for row, text in enumerate(texts):
        assert read(packed, row) == [*text, END]


@given(TEXTS)
def test_every_prefix_is_one_node(texts: list[list[int]]) -> None:
    packed = pack_texts(*padded(texts))
    whole = [(*text, END) for text in texts]
    prefixes = {text[: length + 1] for text in whole for length in range(len(text))}
    assert len(packed.tokens_N) == len(prefixes)
    assert len(packed.paths_UL) == len(set(whole))


@given(TEXTS)
def test_places_name_each_node_once_and_filling_repeats_the_end(texts: list[list[int]]) -> None:
    packed = pack_texts(*padded(texts))
    nodes = packed.paths_UL.flatten()[packed.places_N]
    assert nodes.tolist() == list(range(len(packed.tokens_N)))
    for path, end in zip(packed.paths_UL.tolist(), packed.ends_U.tolist(), strict=True):
        assert set(path[end:]) == {path[end]}


def test_prompts_by_hand() -> None:
    """The texts 7 8 1, 7 8 2 and 7 8 1 again: nodes for 7, 8, 1, 2 and two ends."""
    packed = pack_texts(*padded([[7, 8, 1], [7, 8, 2], [7, 8, 1]]))
    assert packed.tokens_N.tolist() == [7, 8, 1, END, 2, END]
    assert packed.paths_UL.tolist() == [[0, 1, 2, 3], [0, 1, 4, 5]]
    assert packed.rows_K.tolist() == [0, 1, 0]


def test_what_stands_behind_the_end_does_not_count() -> None:
    tokens_KL, ends_K = padded([[1, 2], [1, 2]])
    tokens_KL[1, 4:] = 5
    assert len(pack_texts(tokens_KL, ends_K).paths_UL) == 1


def test_all_of_it_moves_as_int64() -> None:
    packed = pack_texts(*padded([[1], [2]])).to(torch.device("cpu"))
    assert all(tensor.dtype == torch.int64 for tensor in vars(packed).values())
    assert np.all(packed.places_N.numpy() >= 0)
