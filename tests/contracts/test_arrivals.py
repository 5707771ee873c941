"""What arrived, on every store: once, in order, whatever happens meanwhile."""

import json

import pytest

from gift_core.errors import SettingsError, StoreError
from tasks.manifests import sha256_hex
from tasks.store.arrivals import (
    Arrival,
    Arrivals,
    arrivals_of,
    arrivals_path,
    change_arrivals,
    list_arrivals,
)
from tasks.store.heads import ModelReference
from tasks.store.inventory import take_inventory
from tasks.store.objects import ObjectStore
from tasks.store.sweep import find_unreferenced, sweep
from tasks.store.verify import verify_store
from tests.contracts.swarm import NUM_PROCESSES, NUM_TIMES, swarm


def arrival(name: str) -> Arrival:
    digest = sha256_hex(name.encode())
    return Arrival(number=1, name=name, identity=digest, settings={}, digests={"train": digest})


def arrive(store: ObjectStore, *names: str) -> Arrivals:
    for name in names:
        found = change_arrivals(store, "line", lambda f, n=name: f.with_added(arrival(n)))  # type: ignore[misc]
    return found


def test_nothing_arrived(store: ObjectStore) -> None:
    assert arrivals_of(store, "line").tasks == ()
    assert list_arrivals(store) == []
    with pytest.raises(SettingsError, match="no name of a sequence"):
        arrivals_of(store, "../line")


def test_arrivals_are_numbered_and_kept(store: ObjectStore) -> None:
    kept = arrive(store, "a", "b")
    assert [(each.number, each.name) for each in kept.tasks] == [(1, "a"), (2, "b")]
    assert arrivals_of(store, "line") == kept
    known = kept.known(arrival("b").identity)
    assert known is not None
    assert known.number == 2
    assert kept.known(arrival("c").identity) is None
    changed = change_arrivals(store, "line", lambda found: found.with_changed(1, state="learnt"))
    assert [each.state for each in changed.tasks] == ["learnt", "arrived"]
    before = store.read_bytes(arrivals_path("line"))
    change_arrivals(store, "line", lambda found: found)
    assert store.read_bytes(arrivals_path("line")) == before, "no change, no write"
    assert list_arrivals(store) == ["line"]


def test_a_lost_answer_changes_nothing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request was acted on, its answer was lost; or another came first in between."""
    swap, times = store.compare_and_swap, []

    def lost(path: str, data: bytes, version: str | None) -> bool:
        times.append(swap(path, data, version))
        if len(times) == 1:
            raise StoreError("the line broke")
        return times[-1]

    monkeypatch.setattr(store, "compare_and_swap", lost)
    assert [each.name for each in arrive(store, "a").tasks] == ["a"]
    assert times == [True]


def test_others_in_between_are_not_overwritten(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap, others = store.compare_and_swap, ["b", "c"]

    def meet(path: str, data: bytes, version: str | None) -> bool:
        if others:
            name = others.pop()
            change_arrivals(store, "line", lambda found: found.with_added(arrival(name)))
        return swap(path, data, version)

    monkeypatch.setattr(store, "compare_and_swap", meet)
    arrive(store, "a")
    assert sorted(each.name for each in arrivals_of(store, "line").tasks) == ["a", "b", "c"]


def test_no_arrival_of_eight_processes_is_lost_or_doubled(store: ObjectStore) -> None:
    swarm(store.url, "arrive")
    found = arrivals_of(store, "raced").tasks
    own = NUM_TIMES - NUM_TIMES // 5
    assert len(found) == NUM_PROCESSES * own + NUM_TIMES // 5
    assert len({each.identity for each in found}) == len(found)
    for worker in range(NUM_PROCESSES):
        order = [each.name for each in found if each.name.startswith(f"{worker}-")]
        assert order == [f"{worker}-{number}" for number in range(NUM_TIMES) if number % 5]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tasks": None}, "cannot be read"),
        ({"sequence": "other"}, "is not the list of what arrived for line"),
        ({"extra": 1}, "cannot be read"),
    ],
)
def test_an_altered_list_is_refused_and_found(
    store: ObjectStore, change: dict[str, object], sentence: str
) -> None:
    arrive(store, "a", "b")
    content = json.loads(store.read_bytes(arrivals_path("line")))
    store.replace_bytes(arrivals_path("line"), json.dumps(content | change).encode())
    with pytest.raises(StoreError, match=sentence):
        arrivals_of(store, "line")
    (damage,) = verify_store(store).damages
    assert damage.path == "arrivals/line.json"
    with pytest.raises(StoreError, match="nothing is removed"):
        find_unreferenced(store, 0)


def test_a_sweep_keeps_the_list_and_what_it_names(store: ObjectStore) -> None:
    arrive(store, "a")
    key = "0" * 64
    reference = ModelReference(output=f"finetune/{key}", digest=key)
    change_arrivals(store, "line", lambda found: found.with_changed(1, model=reference))
    sweep(store, find_unreferenced(store, 0))
    assert take_inventory(store).arrivals["line"].tasks[0].model == reference
    (damage,) = verify_store(store).damages
    assert damage.problem == "it is missing, but arrival 1 of line names it"
