"""The registry on every store: what a head is, how it moves, and what a race leaves."""

import json

import pytest

from gift_core.errors import SettingsError, StoreError
from gift_core.gate import Failure, Verdict
from tasks.store.heads import Candidate, head_of, history_of, list_sequences
from tasks.store.objects import ObjectStore
from tasks.store.registry import promote, rollback
from tests.contracts.swarm import NUM_PROCESSES, NUM_TIMES, candidate, swarm

REFUSED = Verdict(
    promoted=False,
    failures=(Failure(rule="min_gain", task="a", before=50, after=51, allowed=2),),
)


def child(parent: Candidate, number: int) -> Candidate:
    """A model that was learnt on top of another."""
    made = candidate(100, number)
    return made.model_copy(update={"lineage": parent.lineage | made.lineage})


def grown(store: ObjectStore, count: int = 3) -> list[Candidate]:
    """A sequence `line` with as many promotions, each model the child of the one before."""
    models = [candidate(100, 0)]
    for number in range(1, count):
        models.append(child(models[-1], number))
    for model in models:
        assert promote(store, "line", model, reason="", actor="test") is not None
    return models


def numbers(store: ObjectStore, sequence: str = "line") -> list[tuple[int, str]]:
    return [(entry.number, entry.kind) for entry in history_of(store, sequence)]


def test_nothing_promoted_no_head(store: ObjectStore) -> None:
    assert head_of(store, "line") is None
    assert history_of(store, "line") == []
    assert list_sequences(store) == []


def test_a_promotion_moves_the_head_and_is_kept_whole(store: ObjectStore) -> None:
    models = grown(store)
    head = head_of(store, "line")
    assert head is not None
    assert (head.model, head.lineage) == (models[-1].model, models[-1].lineage)
    history = history_of(store, "line")
    assert [entry.number for entry in history] == [3, 2, 1]
    assert [entry.previous for entry in history] == [history[1].digest, history[2].digest, None]
    assert list_sequences(store) == ["line"]
    paths = store.list("heads")
    archived = [f"heads/line/entries/{entry.digest}.json" for entry in history[1:]]
    assert paths == sorted([*archived, "heads/line/head.json"])


def test_the_head_again_adds_nothing(store: ObjectStore) -> None:
    models = grown(store)
    before = store.list("heads")
    assert promote(store, "line", models[-1], reason="again", actor="test") is None
    assert store.list("heads") == before


def test_a_run_repeated_adds_nothing_but_a_person_may(store: ObjectStore) -> None:
    first, second, third = grown(store)
    for model in (first, second, third):
        assert promote(store, "line", model, reason="", actor="run", again=False) is None
    rollback(store, "line", reason="worse in the field", actor="person")
    for model in (first, second, third):
        assert promote(store, "line", model, reason="", actor="run", again=False) is None
    learnt_meanwhile, learnt_since = child(third, 50), child(second, 51)
    assert promote(store, "line", learnt_meanwhile, reason="", actor="run", again=False) is None
    assert promote(store, "line", learnt_since, reason="", actor="run", again=False) is not None
    assert promote(store, "line", third, reason="fixed", actor="person") is not None
    assert [number for number, _ in numbers(store)] == [6, 5, 4, 3, 2, 1]
    assert promote(store, "line", learnt_meanwhile, reason="", actor="run", again=False) is not None


def test_another_line_of_the_same_name_takes_over_and_back(store: ObjectStore) -> None:
    """The same sequence by another method, then by the first one again."""
    models = grown(store, 2)
    other = candidate(200, 0)
    assert promote(store, "line", other, reason="", actor="run", again=False) is not None
    for model in models:
        assert promote(store, "line", model, reason="", actor="run", again=False) is not None
    assert len(numbers(store)) == 5


def test_an_override_is_recorded_with_what_failed(store: ObjectStore) -> None:
    entry = promote(
        store, "line", candidate(0, 0), reason="the client asked", actor="me", verdict=REFUSED
    )
    assert entry is not None
    assert (entry.kind, entry.reason, entry.actor) == ("overridden", "the client asked", "me")
    assert head_of(store, "line") == entry
    assert entry.verdict == REFUSED


def test_rollback_goes_back_and_twice_goes_back_twice(store: ObjectStore) -> None:
    first, second, third = grown(store)
    entry = rollback(store, "line", reason="bad", actor="me")
    assert entry is not None
    assert (entry.model, entry.kind, entry.restored) == (second.model, "rolled-back", 2)
    again = rollback(store, "line", reason="still bad", actor="me")
    assert again is not None
    assert (again.model, again.restored) == (first.model, 1)
    with pytest.raises(SettingsError, match="no model before"):
        rollback(store, "line", reason="", actor="me")
    named = rollback(store, "line", to=3, reason="", actor="me")
    assert named is not None
    assert named.model == third.model
    assert rollback(store, "line", to=3, reason="", actor="me") is None
    assert numbers(store)[:3] == [(6, "rolled-back"), (5, "rolled-back"), (4, "rolled-back")]
    through = rollback(store, "line", to=4, reason="", actor="me")
    assert through is not None
    assert (through.model, through.restored) == (second.model, 2)


def test_rollback_of_what_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(SettingsError, match="line has no head"):
        rollback(store, "line", reason="", actor="me")
    grown(store, 2)
    with pytest.raises(SettingsError, match="no entry 7; its entries are 1 to 2"):
        rollback(store, "line", to=7, reason="", actor="me")
    with pytest.raises(SettingsError, match="no name of a sequence"):
        head_of(store, "../up")


@pytest.mark.parametrize("damage", ["flipped", "missing", "another's"])
def test_a_broken_chain_is_said(store: ObjectStore, damage: str) -> None:
    grown(store)
    entry = history_of(store, "line")[1]
    path = f"heads/line/entries/{entry.digest}.json"
    if damage == "missing":
        store.delete(path)
    elif damage == "flipped":
        store.replace_bytes(path, entry.content.replace(b"test", b"tast"))
    else:
        store.replace_bytes(path, history_of(store, "line")[2].content)
    assert head_of(store, "line") is not None
    with pytest.raises(StoreError, match=entry.digest[:12]):
        history_of(store, "line")


def test_a_head_that_lies_is_refused(store: ObjectStore) -> None:
    grown(store)
    head = json.loads(store.read_bytes("heads/line/head.json"))
    store.replace_bytes("heads/other/head.json", json.dumps(head).encode())
    with pytest.raises(StoreError, match="is that of line, not of other"):
        head_of(store, "other")
    head["entry"]["number"] = 2
    store.replace_bytes("heads/line/head.json", json.dumps(head).encode())
    with pytest.raises(StoreError, match="was altered"):
        head_of(store, "line")
    store.replace_bytes("heads/line/head.json", b"{")
    with pytest.raises(StoreError, match="cannot be read"):
        head_of(store, "line")


def test_eight_processes_promote_and_no_promotion_is_lost(store: ObjectStore) -> None:
    swarm(store.url, "promote")
    history = history_of(store, "raced")
    total = NUM_PROCESSES * NUM_TIMES
    assert [entry.number for entry in history] == list(range(total, 0, -1))
    found = {(int(entry.actor), int(entry.reason)) for entry in history}
    assert found == {(w, n) for w in range(NUM_PROCESSES) for n in range(NUM_TIMES)}
    for worker in range(NUM_PROCESSES):
        mine = [int(entry.reason) for entry in history if entry.actor == str(worker)]
        assert mine == list(range(NUM_TIMES - 1, -1, -1))
    assert len(store.list("heads/raced/entries")) == total - 1, "who came too late left nothing"
