"""Curves of a training show the terms in use and stay small."""

from tasks import curves
from tests.tasks.conftest import history
from tests.tasks.test_figures import texts


def test_loss_figure_shows_the_terms_in_use() -> None:
    whole = texts(curves.loss_figure(history(300)))
    plain = texts(curves.loss_figure(history(300, replays=False)))
    assert set(curves.LOSS_TERMS.values()) <= set(whole)
    assert set(curves.LOSS_TERMS.values()) & set(plain) == {"Task"}
    assert "replay pairs" in whole
    assert "replay pairs" not in plain


def test_loss_figure_of_many_steps_stays_small() -> None:
    assert len(curves.loss_figure(history(20_000))) < 80_000


def test_steering_figure_shows_both_and_leaves_out_a_skipped_step() -> None:
    columns = history(50)
    assert {"Learning rate", "Gradient norm"} <= set(texts(curves.steering_figure(columns)))
    columns["gradient_norm"] = [None, *columns["gradient_norm"][1:]]
    assert {"Learning rate", "Gradient norm"} <= set(texts(curves.steering_figure(columns)))


def test_equal_histories_give_equal_bytes_and_no_date() -> None:
    first, second = (curves.loss_figure(history(50)) for _ in range(2))
    assert first == second
    assert b"date" not in first.lower()
