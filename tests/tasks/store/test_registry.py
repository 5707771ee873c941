"""Answers that are lost while a head is moved: who did what is told from the head itself."""

from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.store import registry
from tasks.store.heads import head_of, history_of
from tasks.store.objects import FolderStore
from tasks.store.registry import promote, rollback
from tests.contracts.swarm import candidate


class Unreliable(FolderStore):
    """A folder behind a bad line: each swap takes the next of `faults`."""

    faults: tuple[str, ...] = ()

    def compare_and_swap(self, path: str, data: bytes, version: str | None) -> bool:
        fault, *rest = self.faults or ("",)
        self.faults = tuple(rest)
        if fault == "request lost":
            raise StoreError("timed out")
        if fault == "overtaken":
            promote(FolderStore(self.root), "line", candidate(9, 9), reason="", actor="other")
        done = super().compare_and_swap(path, data, version)
        if fault == "passed by":  # the answer is lost, and somebody goes on from our head
            promote(FolderStore(self.root), "line", candidate(9, 9), reason="", actor="other")
        if fault in {"answer lost", "passed by"}:
            raise StoreError("timed out")
        return done and fault != "repeated"


@pytest.fixture
def store(tmp_path: Path) -> Unreliable:
    return Unreliable(tmp_path / "store")


@pytest.mark.parametrize(
    ("faults", "actors"),
    [
        (("request lost",), ["me"]),
        (("answer lost",), ["me"]),
        (("repeated",), ["me"]),  # a second try of the client was refused because the first won
        (("request lost", "answer lost"), ["me"]),
        (("request lost", "overtaken"), ["me", "other"]),
        (("overtaken", "answer lost"), ["me", "other"]),
        (("passed by",), ["other", "me"]),
    ],
)
def test_a_promotion_happens_once_whatever_is_lost(
    store: Unreliable, faults: tuple[str, ...], actors: list[str]
) -> None:
    store.faults = faults
    entry = promote(store, "line", candidate(0, 0), reason="", actor="me")
    assert entry is not None
    history = history_of(store, "line")
    assert [each.actor for each in history] == actors
    assert entry in history
    assert len(store.list("heads/line/entries")) == len(history) - 1


def test_a_store_that_stays_away_is_an_error_and_the_next_try_goes_on(store: Unreliable) -> None:
    store.faults = ("request lost",) * registry.MAX_UNKNOWN
    with pytest.raises(StoreError, match="timed out"):
        promote(store, "line", candidate(0, 0), reason="", actor="me")
    assert head_of(store, "line") is None
    assert promote(store, "line", candidate(0, 0), reason="", actor="me") is not None
    assert len(history_of(store, "line")) == 1


def test_a_rollback_does_not_go_back_from_what_nobody_saw(store: Unreliable) -> None:
    for number in range(2):
        promote(store, "line", candidate(0, number), reason="", actor="me")
    store.faults = ("overtaken",)
    with pytest.raises(StoreError, match="moved meanwhile, to entry 3"):
        rollback(store, "line", reason="", actor="me")
    assert [entry.kind for entry in history_of(store, "line")] == ["promoted"] * 3
    assert len(store.list("heads/line/entries")) == 2
