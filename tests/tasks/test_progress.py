"""Progress says enough, not too much, and never costs the work its life."""

import logging

import pytest

from tasks import progress
from tasks.progress import Progress, artifact_key, duration, run_logger
from tests.clock import Clock

pytestmark = pytest.mark.usefixtures("nobody_looks_on")


def test_a_line_every_five_seconds_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with (
        caplog.at_level(logging.INFO, logger="tasks"),
        Progress("Replay pairs", 20, "pairs", clock=clock) as bar,
    ):
        for number in range(20):
            clock.now += 1.0
            bar.advance(note=f"loss {number}")
    assert caplog.messages == [
        "Replay pairs: 5 of 20 pairs, 1.0 a second, 15.0 s left, loss 4",
        "Replay pairs: 10 of 20 pairs, 1.0 a second, 10.0 s left, loss 9",
        "Replay pairs: 15 of 20 pairs, 1.0 a second, 5.0 s left, loss 14",
        "Replay pairs: 20 of 20 pairs, 1.0 a second, 20.0 s, loss 19",
    ]


def test_what_was_done_before_does_not_count_as_speed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with (
        caplog.at_level(logging.INFO, logger="tasks"),
        Progress("Steps", 1000, "steps", start=500, clock=clock) as bar,
    ):
        clock.now += 10.0
        bar.advance(100)
    assert caplog.messages[0] == "Steps: 600 of 1,000 steps, 10.0 a second, 40.0 s left"


def test_where_it_stopped_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="tasks"),
        pytest.raises(ZeroDivisionError),
        Progress("Steps", 3, "steps", clock=Clock()),
    ):
        raise ZeroDivisionError
    assert caplog.messages == ["Steps: 0 of 3 steps; stopped by ZeroDivisionError"]
    assert caplog.records[0].levelno == logging.WARNING


def test_nothing_to_do_is_no_error() -> None:
    with Progress("Nothing", 0, "steps"):
        pass


def test_a_display_that_fails_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is gone: said once, and the work goes on."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(progress, "inside_run", lambda: True)
    monkeypatch.setattr(progress, "run_logger", lambda: logging.getLogger("tasks"))
    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    clock = Clock()
    with Progress("Steps", 3, "steps", clock=clock) as bar:
        for _ in range(3):
            clock.now += 2.0
            bar.advance()
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warned] == [
        "Steps: the progress artifact is not kept (no server)"
    ]


def test_outside_a_run_the_standard_logger_speaks() -> None:
    assert run_logger() is logging.getLogger("tasks")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.123, "0.12 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_artifact_keys() -> None:
    assert artifact_key("pairs-My_Digits 2!") == "pairs-my-digits-2"
