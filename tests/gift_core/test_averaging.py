"""Averages of weights: their ends, the mean of several sets, and going on from a saved one."""

import pytest
import torch

from gift_core.averaging import RunningMean, interpolate, running_average_
from gift_core.errors import DataError

ORIGIN, LEARNT = (torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, -2.0]),)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, [1.0, 2.0]), (1.0, [3.0, -2.0]), (0.25, [1.5, 1.0])]
)
def test_a_mixture_goes_from_the_origin_to_what_was_learnt(
    share: float, expected: list[float]
) -> None:
    assert interpolate(ORIGIN, LEARNT, share)[0].tolist() == expected


def test_a_running_average_is_the_mean_of_all_sets() -> None:
    sets = [torch.randn(5, generator=torch.Generator().manual_seed(n)).double() for n in range(4)]
    mean = RunningMean.starting_with([sets[0]])
    for each in sets[1:]:
        mean.see_([each])
    assert torch.allclose(mean.tensors[0], torch.stack(sets).mean(0))
    assert mean.count == 4
    assert torch.equal(sets[0], torch.randn(5, generator=torch.Generator().manual_seed(0)).double())


def test_an_empty_mean_takes_the_first_set_as_it_is() -> None:
    mean = RunningMean.empty(ORIGIN)
    mean.see_(LEARNT)
    assert torch.equal(mean.tensors[0], LEARNT[0])


def test_sets_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        running_average_([torch.zeros(2), torch.zeros(2)], LEARNT, 1)


def test_a_saved_mean_goes_on_and_another_runs_is_refused() -> None:
    mean = RunningMean.starting_with(ORIGIN)
    mean.see_(LEARNT)
    saved = {name: tensor.clone() for name, tensor in mean.saved("m", ["w"]).items()}
    again = RunningMean.empty(ORIGIN)
    again.restore_("m", ["w"], saved)
    assert (again.tensors[0].tolist(), again.count) == ([2.0, 0.0], 2)
    with pytest.raises(DataError, match=r"m\.w has the shape \(2,\) where the model has \(3,\)"):
        RunningMean.empty([torch.zeros(3)]).restore_("m", ["w"], saved)
