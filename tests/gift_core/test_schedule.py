"""Warm-up and cosine: numbers by hand, and the edges."""

import pytest

from gift_core.errors import SettingsError
from gift_core.schedule import learning_rate_at


def test_worked_out_by_hand() -> None:
    """12 steps, 4 of warm-up, peak 8: 2, 4, 6, 8; then 4 (1 + cos(pi k / 8)), k = 0 to 7."""
    rates = [learning_rate_at(step, 12, 4, 8.0) for step in range(12)]
    cosine = [8.0, 7.69552, 6.82843, 5.53073, 4.0, 2.46927, 1.17157, 0.30448]
    assert rates == pytest.approx([2.0, 4.0, 6.0, 8.0, *cosine], abs=1e-5)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert learning_rate_at(0, 3, 0, 1e-5) == 1e-5


def test_warm_up_may_be_all_there_is() -> None:
    assert [learning_rate_at(step, 2, 2, 1.0) for step in range(2)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("step", "num_steps", "warmup_steps", "what"),
    [(-1, 3, 0, "step: -1"), (3, 3, 0, "step: 3"), (0, 3, 4, "warmup_steps: 4")],
)
def test_refuses_what_lies_outside(step: int, num_steps: int, warmup_steps: int, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        learning_rate_at(step, num_steps, warmup_steps, 1.0)
