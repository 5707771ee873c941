"""A clock that is hours off: S3 refuses it in one sentence, everything else does not look at it."""

import datetime
import time
from collections.abc import Iterator

import botocore.auth
import botocore.compat
import pytest

from gift_core.errors import StoreError
from tasks.store import registry, s3_conditions
from tasks.store.heads import history_of
from tasks.store.objects import ObjectStore
from tasks.store.s3 import S3Store
from tasks.store.sweep import find_unreferenced
from tests.contracts.conftest import store
from tests.contracts.swarm import candidate

__all__ = ["store"]
DAY = 24 * 3600


@pytest.fixture(params=[-5 * 3600, 5 * 3600], ids=["behind", "ahead"])
def signing_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The clock that signs requests, and that the sentence compares, is five hours off."""
    right = botocore.compat.get_current_datetime

    def wrong(remove_tzinfo: bool = True) -> datetime.datetime:
        return right(remove_tzinfo) + datetime.timedelta(seconds=request.param)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", wrong)
    monkeypatch.setattr(s3_conditions, "get_current_datetime", wrong)
    return int(request.param)


def test_a_wrong_clock_is_named(hasty: S3Store, signing_clock: int) -> None:
    way = "ahead of" if signing_clock > 0 else "behind"
    sentence = rf"write {hasty.url}/x: this machine's clock is (299|300|301) minutes {way} that"
    with pytest.raises(StoreError, match=sentence) as caught:
        hasty.put_if_absent("x", b"1")
    assert "set the clock, then run again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def off_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The clock of this process, off by a list's sum in seconds; requests are signed rightly."""
    seconds: list[float] = []
    now, right = time.time, datetime.datetime

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return right.now(tz) + datetime.timedelta(seconds=sum(seconds))

    monkeypatch.setattr(registry, "datetime", Wrong)
    monkeypatch.setattr(time, "time", lambda: now() + sum(seconds))
    yield seconds
    seconds.clear()


def test_the_order_of_heads_is_not_a_matter_of_clocks(
    store: ObjectStore, off_by: list[float]
) -> None:
    for number, step in enumerate((0, 30 * DAY, -60 * DAY)):
        off_by.append(step)
        registry.promote(store, "line", candidate(0, number), reason="", actor=f"{number}")
    history = history_of(store, "line")
    assert [(entry.number, entry.actor) for entry in history] == [(3, "2"), (2, "1"), (1, "0")]
    assert history[0].time < history[2].time < history[1].time
    restored = registry.rollback(store, "line", reason="", actor="back")
    assert restored is not None
    assert restored.model == history[1].model


def test_sweeping_reads_the_clock_of_the_store(store: ObjectStore, off_by: list[float]) -> None:
    store.put_if_absent("outputs/finetune/abc/0123/file", b"young, and its output unfinished")
    off_by.append(400 * DAY)
    assert find_unreferenced(store, 7 * DAY).groups == ()
    off_by.append(-800 * DAY)
    assert len(find_unreferenced(store, -1).groups) == 1, "it is seen, and was spared for its age"
