"""Image-text alignment: targets, values by hand, and the formulas it is not."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gift_core.alignment import image_text_alignment, prompt_targets
from tests.gift_core.released_step import shared_positives, smooth, soft_cross_entropy

LOGITS = torch.tensor([[0.0, 0.0, log(2)], [0.0, 0.0, log(2)], [0.0, 0.0, 0.0]]).double()
IDS = torch.tensor([7, 7, 3])


def test_equal_prompts_share_a_row() -> None:
    """Prompt 5 stands three times, prompt 1 once: thirds and a one."""
    third = 1 / 3
    expected = torch.tensor(
        [
            [third, 0, third, third],
            [0, 1, 0, 0],
            [third, 0, third, third],
            [third, 0, third, third],
        ],
        dtype=torch.float64,
    )
    assert torch.equal(prompt_targets(torch.tensor([5, 1, 5, 5]), torch.float64), expected)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_targets_are_symmetric_and_rows_sum_to_one(ids: list[int]) -> None:
    targets_BB = prompt_targets(torch.tensor(ids), torch.float64)
    torch.testing.assert_close(targets_BB.sum(dim=1), torch.ones(len(ids), dtype=torch.float64))
    assert torch.equal(targets_BB, targets_BB.T)
    torch.testing.assert_close(targets_BB, shared_positives(torch.tensor(ids), targets_BB))


def test_value_worked_out_by_hand() -> None:
    """Prompts (a, a, b), all logits 0 but M[0, 2] = M[1, 2] = ln 2, no smoothing.

    Rows 1 and 2, (0, 0, ln 2) with target (1/2, 1/2, 0): ln 4 each; row 3: ln 3.
    Columns 1 and 2: ln 3 each; column 3, (ln 2, ln 2, 0) with target (0, 0, 1): ln 5.
    Together: (2 ln 4 + ln 3) / 3 + (2 ln 3 + ln 5) / 3.
    """
    expected = (4 * log(2) + 3 * log(3) + log(5)) / 3
    assert image_text_alignment(LOGITS, IDS, 0.0).item() == pytest.approx(expected)


def test_smoothed_value_worked_out_by_hand() -> None:
    """Two prompts, M = [[0, ln 3], [0, 0]], smoothing 0.2: targets (0.9, 0.1) and (0.1, 0.9).

    Row 1, log q = (-ln 4, ln 3/4): 0.9 ln 4 + 0.1 ln 4/3 = 2 ln 2 - 0.1 ln 3; row 2: ln 2.
    Columns: ln 2, and 0.1 ln 4/3 + 0.9 ln 4, the same two. Together: 3 ln 2 - 0.1 ln 3.
    """
    logits = torch.tensor([[0.0, log(3)], [0.0, 0.0]], dtype=torch.float64)
    value = image_text_alignment(logits, torch.tensor([0, 1]), 0.2).item()
    assert value == pytest.approx(3 * log(2) - 0.1 * log(3))


def _rows(logits: Tensor, targets: Tensor) -> Tensor:
    return soft_cross_entropy(logits, targets)


MUTANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rows twice": lambda m, y: 2 * _rows(m, y),
    "columns twice": lambda m, y: 2 * _rows(m.T, y),
    "mean of both": lambda m, y: (_rows(m, y) + _rows(m.T, y)) / 2,
    "one positive a row": lambda m, y: _rows(m, torch.eye(3).double()) + _rows(m.T, torch.eye(3)),
    "positives not shared": lambda m, y: _rows(m, (y > 0).double()) + _rows(m.T, (y > 0).double()),
    "wrong sign": lambda m, y: -_rows(m, y) - _rows(m.T, y),
    "smoothed": lambda m, y: _rows(m, smooth(y, 0.2)) + _rows(m.T, smooth(y, 0.2)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_formula_gives_another_number(mutant: str) -> None:
    logits = LOGITS + torch.tensor([[0.3, -0.2, 0.0], [0.9, 0.1, 0.0], [-0.4, 0.0, 0.5]]).double()
    right = image_text_alignment(logits, IDS, 0.0).item()
    wrong = MUTANTS[mutant](logits, shared_positives(IDS, logits)).item()
    assert abs(wrong - right) > 0.005


@given(st.permutations(range(5)), st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.7]))
def test_the_order_of_pairs_does_not_matter(order: list[int], seed: int, smoothing: float) -> None:
    logits_BB = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, 5)))
    ids_B = torch.tensor([0, 1, 0, 2, 2])
    permuted = image_text_alignment(logits_BB[order][:, order], ids_B[order], smoothing)
    torch.testing.assert_close(
        permuted, image_text_alignment(logits_BB, ids_B, smoothing), rtol=0, atol=1e-12
    )


def test_keeps_the_dtype_and_float64_precision() -> None:
    assert image_text_alignment(LOGITS.float(), IDS, 0.2).dtype == torch.float32
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: image_text_alignment(m, IDS, 0.2), logits)
