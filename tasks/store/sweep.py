"""Sweeping: what no head and no report reaches and nobody has touched for a while.

An output that a run finds is touched (its run record is written anew), so what a running pipeline
works with is young, and what young outputs and checkpoints were made from is kept as well.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from gift_core.errors import StoreError
from tasks.store.heads import HEADS, entry_path
from tasks.store.inventory import Inventory, lineages, take_inventory
from tasks.store.objects import ObjectStore
from tasks.store.step_checkpoints import LatestCheckpoint


@dataclass(frozen=True)
class Unreferenced:
    """Objects that go together, what they are, and their size."""

    what: str
    paths: tuple[str, ...]
    num_bytes: int


def find_unreferenced(store: ObjectStore, grace_seconds: float) -> list[Unreferenced]:
    """List what may go: older than the grace time by the store's own clock, and not reached.

    Raises StoreError when a history, a view or a manifest cannot be read: nobody knows what it
    reaches, so nothing may go.
    """
    inventory = take_inventory(store)
    if inventory.damages:
        first = inventory.damages[0]
        raise StoreError(
            f"{store.url}/{first.path}: {first.problem}; what it reaches is not known, so nothing "
            "is removed: repair or delete it first (`gift verify` lists all damage)"
        )
    ages = _Ages(store)
    old = [
        group
        for group in (*_checkpoints(store), *_lost_entries(store, inventory))
        if ages.youngest(group[1]) > grace_seconds
    ]
    old += [
        group
        for group in _outputs(inventory, _reached(store, inventory, ages, grace_seconds))
        if ages.youngest(group[1]) > grace_seconds
    ]
    return [
        Unreferenced(what, tuple(paths), sum(store.size(path) or 0 for path in paths))
        for what, paths in old
    ]


def sweep(store: ObjectStore, found: list[Unreferenced], grace_seconds: float) -> int:
    """Remove what was found and is still untouched; how many objects went. StoreError otherwise.

    An output's manifest goes first: whoever looks meanwhile sees no output, not half of one.
    """
    num_removed = 0
    for each in found:
        ages = _Ages(store)  # a run may have found it since
        if ages.youngest(each.paths) <= grace_seconds:
            continue
        for path in sorted(each.paths, key=lambda path: not path.endswith("/manifest.json")):
            store.delete(path)
            num_removed += 1
    return num_removed


class _Ages:
    """Ages by the store's clock: this machine's may be wrong."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        path = f"clock-{secrets.token_hex(8)}"
        store.put_if_absent(path, b"")
        now = store.modified(path)
        store.delete(path)
        if now is None:
            raise StoreError(f"{store.url}/{path} vanished at once; look at the store's rules")
        self._now = now

    def youngest(self, paths: tuple[str, ...] | list[str]) -> float:
        """The age in seconds of the object that was written last; -1 where none is left."""
        times = [self._store.modified(path) for path in paths]
        return self._now - max((time for time in times if time is not None), default=self._now + 1)


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
    """Entries that a broken promotion left: no history names them."""
    named = {
        entry_path(name, entry.digest)
        for name, history in inventory.histories.items()
        for entry in history
    }
    for path in store.list(HEADS):
        if "/entries/" in path and path not in named:
            yield "entry that no history names", [path]
