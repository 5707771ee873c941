"""Sweeping: what no head and no report reaches and nobody has touched for a while.

An output that a run finds is touched (its run record is written anew), so what a running pipeline
works with is young, and what young outputs and checkpoints were made from is kept as well. While a
run holds its lease, everything counts as young that was written or touched since the run began, so
that even a grace of nothing takes nothing from it.

A run and a sweep may meet at one output. The run touches it and then looks whether its manifest
still stands; the sweep removes the manifest and then looks whether it was touched, and puts it back
if so. One of them sees the other: the run makes the output again, or the sweep leaves it. What
remains is a run that makes it again within the milliseconds in which the sweep removes the old
files of it, and finds one of them still there: a reader is then told that the file is missing, and
the next run makes it again.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from gift_core.errors import StoreError
from tasks.store.heads import HEADS, entry_path
from tasks.store.inventory import Inventory, lineages, take_inventory
from tasks.store.leases import LEASES, LOST_SECONDS, leases, runs_under_way
from tasks.store.leftovers import Leftover
from tasks.store.objects import ObjectStore
from tasks.store.step_checkpoints import LatestCheckpoint

WRITING_SECONDS = 30.0
"""A temporary file is spared so long whatever the grace time: a run that checks its store or takes
its lease is not seen to be under way yet, and nobody may take from it what it is writing."""


@dataclass(frozen=True)
class Unreferenced:
    """Objects that go together, what they are, and their size."""

    what: str
    paths: tuple[str, ...]
    num_bytes: int


@dataclass(frozen=True)
class Findings:
    """What may go: objects that nothing reaches, and what killed writers left.

    `runs` are the runs under way when the look began, `spared_seconds` is the grace time, or the
    time since the first of them began where that is longer.
    """

    groups: tuple[Unreferenced, ...]
    leftovers: tuple[Leftover, ...]
    runs: frozenset[str]
    spared_seconds: float

    @property
    def num_objects(self) -> int:
        """How many objects may go."""
        return sum(len(group.paths) for group in self.groups) + len(self.leftovers)

    @property
    def num_bytes(self) -> int:
        """How many bytes they take."""
        return sum(each.num_bytes for each in (*self.groups, *self.leftovers))


def find_unreferenced(store: ObjectStore, grace_seconds: float) -> Findings:
    """List what may go: older than the grace time by the store's own clock, and not reached.

    Raises StoreError when a history, a view or a manifest cannot be read: nobody knows what it
    reaches, so nothing may go.
    """
    ages = _Ages(store)
    runs = runs_under_way(store, ages.of)
    spared = max([grace_seconds, *runs.values()])
    inventory = take_inventory(store)
    if inventory.damages:
        first = inventory.damages[0]
        raise StoreError(
            f"{store.url}/{first.path}: {first.problem}; what it reaches is not known, so nothing "
            "is removed: repair or delete it first (`gift verify` lists all damage)"
        )
    groups = (
        *_checkpoints(store),
        *(("parameter of a run", [path]) for path in store.list("parameters")),
        *_lost_entries(store, inventory),
        *_outputs(inventory, _reached(store, inventory, ages, spared)),
    )
    old = [group for group in groups if ages.youngest(group[1]) > spared]
    old += [
        (f"lease of a run that is gone, {run}", paths)
        for run, paths in leases(store).items()
        if ages.youngest(paths) > max(spared, LOST_SECONDS)
    ]
    return Findings(
        groups=tuple(
            Unreferenced(what, tuple(paths), sum(store.size(path) or 0 for path in paths))
            for what, paths in old
        ),
        leftovers=tuple(
            each
            for each in store.leftovers()
            if ages.since(each.written) > max(spared, WRITING_SECONDS)
        ),
        runs=frozenset(runs),
        spared_seconds=spared,
    )


def sweep(store: ObjectStore, found: Findings) -> int:
    """Remove what was found and is still untouched; how many objects went.

    Raises StoreError, also when a run began since: it may have found what was about to go.
    """
    num_removed = 0
    for group in found.groups:
        ages = _Ages(store)  # before the leases are read: what a later run touches is younger
        if set(runs_under_way(store, ages.of)) - found.runs:
            raise StoreError(
                f"a run began in {store.url} meanwhile; {num_removed} objects were removed until "
                "then, give the command again for the rest"
            )
        num_removed += _remove(store, group.paths, ages, found.spared_seconds)
    ages, there = _Ages(store), set(store.leftovers())
    for leftover in found.leftovers:
        if leftover in there and ages.since(leftover.written) > found.spared_seconds:
            store.discard(leftover)
            num_removed += 1
    return num_removed


def _remove(store: ObjectStore, paths: Sequence[str], ages: "_Ages", spared_seconds: float) -> int:
    """Remove a group unless it was touched; how many objects went.

    An output's manifest goes first: whoever looks meanwhile sees no output, not half of one.
    """
    manifests = [path for path in paths if path.endswith("/manifest.json")]
    records = [path.replace("/manifest.json", "/run.json") for path in manifests]
    watched = [*paths, *records]  # a touch writes the record anew, also where there was none
    if ages.youngest(watched) <= spared_seconds:
        return 0
    for manifest in manifests:
        stood = store.read_bytes(manifest)
        store.delete(manifest)
        if ages.youngest(records) <= spared_seconds and store.exists(records[0]):
            store.put_if_absent(manifest, stood)
            return 0
    for path in paths:
        if path not in manifests:
            store.delete(path)
    return len(paths)


class _Ages:
    """Ages by the store's clock: this machine's may be wrong."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        path = f"{LEASES}/clock-{secrets.token_hex(8)}"
        store.put_if_absent(path, b"")
        now = store.modified(path)
        store.delete(path)
        if now is None:
            raise StoreError(f"{store.url}/{path} vanished at once; look at the store's rules")
        self._now = now

    def since(self, time: float) -> float:
        """The seconds since a time that the store told."""
        return self._now - time

    def of(self, path: str) -> float | None:
        """The age of an object in seconds; None where there is none."""
        time = self._store.modified(path)
        return None if time is None else self.since(time)

    def youngest(self, paths: Sequence[str]) -> float:
        """The age in seconds of the object that was written last; -1 where none is left."""
        return min((age for path in paths if (age := self.of(path)) is not None), default=-1.0)


def _reached(
    store: ObjectStore, inventory: Inventory, ages: _Ages, grace_seconds: float
) -> set[str]:
    roots = {reference for _, named in lineages(inventory) for reference in named}
    for view in inventory.views.values():
        roots |= {view.reference, *view.named_outputs}
        baseline = inventory.by_digest.get(view.manifest.inputs.get("baseline", ""))
        roots |= {baseline} if baseline else set()
    for _, paths in _checkpoints(store):
        if ages.youngest(paths) <= grace_seconds:
            roots |= {
                inventory.by_digest[digest]
                for digest in _inputs(store, paths)
                if digest in inventory.by_digest
            }
    reached = inventory.reached_from(roots)
    young = {
        reference
        for reference, paths in inventory.objects.items()
        if reference not in reached and ages.youngest(paths) <= grace_seconds
    }
    return reached | inventory.reached_from(young)


def _outputs(inventory: Inventory, reached: set[str]) -> Iterator[tuple[str, list[str]]]:
    for reference, paths in inventory.objects.items():
        output = inventory.outputs.get(reference)
        if reference not in reached:
            whole = "output" if output else "unfinished output"
            yield f"{whole} {reference}", paths
        elif output is not None:
            place = f"outputs/{reference}"
            named = {ref.path for ref in output.manifest.files}
            named |= {f"{place}/manifest.json", f"{place}/run.json"}
            if second := [path for path in paths if path not in named]:
                yield f"files that {reference} does not name", second


def _checkpoints(store: ObjectStore) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for path in store.list("checkpoints"):
        groups.setdefault("/".join(path.split("/")[1:3]), []).append(path)
    return [(f"checkpoint of {reference}", paths) for reference, paths in groups.items()]


def _inputs(store: ObjectStore, paths: list[str]) -> list[str]:
    """The digests of what a stage under way works with, where its checkpoint tells."""
    for path in paths:
        if path.endswith("/latest.json"):
            try:
                latest = LatestCheckpoint.model_validate_json(store.read_bytes(path), strict=True)
            except (ValidationError, StoreError):  # torn, or the stage has just ended
                return []
            return list(latest.inputs.values())
    return []


def _lost_entries(store: ObjectStore, inventory: Inventory) -> Iterator[tuple[str, list[str]]]:
    """Entries that no history names: somebody removed the head that named them."""
    named = {
        entry_path(name, entry.digest)
        for name, history in inventory.histories.items()
        for entry in history
    }
    for path in store.list(HEADS):
        if "/entries/" in path and path not in named:
            yield "entry that no history names", [path]
