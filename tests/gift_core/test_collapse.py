"""A collapse is noticed within a window, noise never, and a resumed run notices the same."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gift_core.collapse import CollapseSettings, CollapseWatch
from gift_core.errors import Diverged

percents = st.floats(0.0, 100.0)
settings = st.builds(CollapseSettings, window=st.integers(5, 60), share=st.floats(0.01, 0.9))
WINDOW_5 = CollapseSettings(window=5, share=0.5)
histories = st.lists(st.none() | percents, max_size=300)


def fired_at(watch: CollapseWatch, values: list[float | None]) -> int | None:
    """The index of the value at which the watch says stop."""
    for index, value in enumerate(values):
        try:
            watch.see(value)
        except Diverged:
            return index
    return None


def binomial(rng: random.Random, batch_size: int, accuracy: float, num_steps: int) -> list[float]:
    """What batches of pairs show, in percent, of a true accuracy from 0 to 1."""
    return [
        100.0 * sum(rng.random() < accuracy for _ in range(batch_size)) / batch_size
        for _ in range(num_steps)
    ]


def test_worked_out_by_hand() -> None:
    """Window 5, share 0.5, start 80: the bar is 40.

    The last five after three, four and five times 30 are 80 80 30 30 30, 80 30 30 30 30 and 30 x 5:
    means 50, 40 and 30, of which only the last is below the bar, by 10 and without noise.
    """
    assert fired_at(CollapseWatch(WINDOW_5), [80.0] * 5 + [30.0] * 5) == 9


def test_a_fall_within_its_noise_waits_for_more() -> None:
    """Window 5, share 0.5, start 80: the bar is 40, and all means here are 30, so the fall is 10.

    Standard errors: of 25 30 35 30 30, sqrt(50 / 4 / 5) = 1.58, and 4 x 1.58 < 10; of 15 30 45 30
    30, three times as much, and 4 x 4.74 > 10.
    """
    before = [80.0] * 5
    assert fired_at(CollapseWatch(WINDOW_5), [*before, 25.0, 30.0, 35.0, 30.0, 30.0]) == 9
    noisy = [15.0, 30.0, 45.0, 30.0, 30.0]
    assert fired_at(CollapseWatch(WINDOW_5), before + noisy * 20) is None


def test_the_noise_of_the_start_counts_too() -> None:
    """Window 5, share 0.5, as noise counts half as well: start 60 100 80 80 80 has 6.32, so 3.16.

    Four times that is 12.6: five times 30 (10 below the bar) is not enough, five times 25 (15) is.
    """
    before = [60.0, 100.0, 80.0, 80.0, 80.0]
    assert fired_at(CollapseWatch(WINDOW_5), before + [30.0] * 50) is None
    assert fired_at(CollapseWatch(WINDOW_5), before + [25.0] * 50) == 9


def test_a_fall_to_just_the_share_is_none() -> None:
    watch = CollapseWatch(WINDOW_5)
    assert fired_at(watch, [80.0] * 5 + [40.0] * 50) is None
    assert fired_at(watch, [39.9] * 10) == 4


def test_the_message_says_now_then_and_what_to_do() -> None:
    watch = CollapseWatch(CollapseSettings())
    for value in [90.0, 95.0] * 10 + [1.25] * 19:
        watch.see(value)
    with pytest.raises(Diverged) as caught:
        watch.see(1.25)
    assert str(caught.value) == (
        "replay accuracy collapsed: 1.2 % over the last 20 steps, 92.5 % over the first, so the "
        "model is losing what it knew; use a smaller learning_rate or a larger weight of "
        "distillation"
    )


def test_it_goes_on_saying_so_until_the_accuracy_is_back() -> None:
    watch = CollapseWatch(CollapseSettings(window=5))
    for value in [90.0] * 5 + [0.0] * 4:
        watch.see(value)
    for _ in range(3):
        with pytest.raises(Diverged):
            watch.see(0.0)
    watch.see(90.0)


def test_share_0_switches_it_off() -> None:
    watch = CollapseWatch(CollapseSettings(share=0.0))
    assert fired_at(watch, [95.0] * 20 + [0.0] * 500) is None


@given(settings, percents, st.integers(0, 200))
@example(CollapseSettings(window=7, share=0.9), 100.0 / 3.0, 200)
@example(CollapseSettings(), 0.0, 200)
def test_a_constant_accuracy_never_fires(
    chosen: CollapseSettings, accuracy: float, num_steps: int
) -> None:
    assert fired_at(CollapseWatch(chosen), [accuracy] * num_steps) is None


@given(settings, st.lists(st.floats(50.0, 100.0), min_size=60, max_size=200))
def test_a_fall_to_zero_fires_within_a_window(
    chosen: CollapseSettings, before: list[float]
) -> None:
    fired = fired_at(CollapseWatch(chosen), [*before, *[0.0] * chosen.window])
    assert fired is not None
    assert fired >= len(before)


@given(settings, histories)
def test_what_never_falls_below_the_share_never_fires(
    chosen: CollapseSettings, history: list[float | None]
) -> None:
    """Accuracies from share x 100 to 100: no start is so good that the share of it is missed."""
    lifted = [None if x is None else max(x, 100.0 * chosen.share) for x in history]
    assert fired_at(CollapseWatch(chosen), lifted) is None


@given(settings, histories)
def test_steps_without_replay_are_ignored(
    chosen: CollapseSettings, history: list[float | None]
) -> None:
    kept = [index for index, value in enumerate(history) if value is not None]
    fired = fired_at(CollapseWatch(chosen), [history[index] for index in kept])
    assert fired_at(CollapseWatch(chosen), history) == (None if fired is None else kept[fired])


@given(settings, histories, st.floats(0.0, 1.0))
def test_a_run_that_is_shown_its_history_first_goes_on_alike(
    chosen: CollapseSettings, history: list[float | None], broken_at: float
) -> None:
    history = [*history, *[0.0] * chosen.window]
    whole = fired_at(CollapseWatch(chosen), history)
    stop = int(broken_at * (len(history) if whole is None else whole))
    resumed = CollapseWatch(chosen)
    assert fired_at(resumed, history[:stop]) is None
    rest = fired_at(resumed, history[stop:])
    assert whole == (None if rest is None else stop + rest)


@pytest.mark.parametrize("batch_size", [4, 16, 64])
@pytest.mark.parametrize("percent", ["guessing", 30, 60, 95])
def test_noise_alone_does_not_fire(batch_size: int, percent: int | str) -> None:
    """20 runs of 1000 steps; the rates of 100,000 stand at NUM_ERRORS."""
    rng = random.Random(f"{batch_size} {percent}")  # noqa: S311
    accuracy = 1.0 / batch_size if isinstance(percent, str) else percent / 100.0
    for _ in range(20):
        values = binomial(rng, batch_size, accuracy, 1000)
        assert fired_at(CollapseWatch(CollapseSettings()), [*values]) is None


@pytest.mark.parametrize(("batch_size", "percent"), [(16, 95), (64, 60), (64, 95)])
def test_a_model_that_only_guesses_is_noticed(batch_size: int, percent: int) -> None:
    """Within 20 steps, as the setting's help says."""
    rng = random.Random(f"{batch_size} {percent}")  # noqa: S311
    for _ in range(20):
        values = binomial(rng, batch_size, percent / 100.0, 300)
        values += binomial(rng, batch_size, 1.0 / batch_size, 100)
        fired = fired_at(CollapseWatch(CollapseSettings()), [*values])
        assert fired is not None
        assert 300 <= fired < 320, fired
