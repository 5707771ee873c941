"""Pieces: every number once, as views, in groups that stay below the bound."""

import pytest
import torch

from gift_core import pieces
from gift_core.pieces import groups_of, sums_of_squares


def test_every_number_belongs_to_one_piece_of_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CPU_PIECE", 10)
    rows = [(torch.arange(n).double(), torch.arange(n).double()) for n in (3, 25, 4, 1)]
    groups = list(groups_of(rows))
    assert [group.owners for group in groups] == [[0], [1], [1], [1, 2, 3]]
    for group in groups:
        assert sum(piece.numel() for piece in group.columns[0]) <= 10
        for one, other in zip(*group.columns, strict=True):
            assert torch.equal(one, other)
            one.add_(100.0)
    for changed, kept in rows:
        assert torch.equal(changed, kept + 100.0)


def test_tensors_that_cannot_be_cut_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CPU_PIECE", 10)
    turned = torch.arange(40.0).reshape(4, 10).T
    (group,) = groups_of([(turned, torch.zeros(10, 4))])
    assert group.columns[0][0] is turned


def test_sums_of_squares_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 + 1 + 4 + 9 = 14, and 9."""
    monkeypatch.setattr(pieces, "CPU_PIECE", 2)
    sums = sums_of_squares([torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([-3.0])])
    torch.testing.assert_close(sums, torch.tensor([14.0, 9.0]))
