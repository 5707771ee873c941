"""A piece of work lags at most one behind, in order; nothing of it is lost, no thread stays."""

import logging
import threading
import time
from collections.abc import Callable

import pytest

from tasks.behind import OneBehind


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("lagging")}


def test_a_piece_is_done_beside_its_asker_and_the_next_one_waits_for_it() -> None:
    """While the first is held, the second is handed over but not begun; a third has to wait."""
    held = threading.Event()
    begun: list[int] = []
    done: list[int] = []

    def piece(number: int) -> int:
        begun.append(number)
        assert held.wait(5)
        done.append(number)
        return number

    with OneBehind("lagging") as behind:
        first = behind.submit(lambda: piece(1))
        threading.Timer(0.1, held.set).start()
        second = behind.submit(lambda: piece(2))  # returns when the first is done
        assert done[0] == 1
        third = behind.submit(lambda: piece(3))
        assert begun[:2] == done[:2] == [1, 2]
    assert [each.result() for each in (first, second, third)] == done == [1, 2, 3]
    assert threads() == set()


def fail() -> None:
    raise OSError("the store is full")


def hand_over(*pieces: Callable[[], object]) -> None:
    with OneBehind("lagging") as behind:
        for piece in pieces:
            behind.submit(piece)


def cancelled_after(piece: Callable[[], object]) -> None:
    with OneBehind("lagging") as behind:
        behind.submit(piece)
        raise KeyboardInterrupt


def test_an_error_is_raised_at_the_next_piece_which_is_done_all_the_same() -> None:
    done: list[int] = []
    with pytest.raises(OSError, match="full"):
        hand_over(fail, lambda: done.append(2), lambda: done.append(3))
    assert done == [2]
    assert threads() == set()


def test_the_last_pieces_error_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="full"):
        hand_over(fail)


def test_a_cancellation_waits_for_the_piece_that_is_under_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.1)
        done.append("slow")

    with pytest.raises(KeyboardInterrupt):
        cancelled_after(slow)
    assert done == ["slow"]
    assert threads() == set()
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        cancelled_after(fail)
    assert "the work before it failed: the store is full" in caplog.text
