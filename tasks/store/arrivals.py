"""Tasks that arrived for a sequence, in order, as the store keeps them.

    arrivals/<sequence>.json    one list, replaced by compare-and-swap

A task is found by its identity, the digest of its words and of its data, so that the same task
twice is one arrival. What became of it stands beside it; no entry is ever removed.
"""

import random
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from gift_core.errors import StoreError
from tasks.manifests import Json, Record, canonical_json
from tasks.store.heads import Digest, ModelReference, checked_name
from tasks.store.objects import ObjectStore

ARRIVALS = "arrivals"
MAX_ATTEMPTS = 100
MAX_UNKNOWN = 5
"""Connections lost in a row while the list is written, before the caller is told."""
_WAIT_SECONDS = 0.05

State = Literal["arrived", "learnt", "refused", "failed", "duplicate"]


class Arrival(Record):
    """One task that arrived; `number` counts from 1 in the order of arrival.

    `identity` is the digest of its words and data, `settings` are those of the task, `digests` are
    those of its splits. `place` is the inbox folder that it lay in with the digest of its task.yaml
    ("" where it came otherwise). `model` is what was learnt, `reason` why it was not.
    """

    number: int = Field(ge=1)
    name: str
    identity: Digest
    settings: Json
    digests: dict[str, Digest]
    place: str = ""
    state: State = "arrived"
    reason: str = ""
    model: ModelReference | None = None
    announced: bool = False


class Arrivals(Record):
    """The whole list; `attempt` tells two versions of equal content from one another."""

    schema_version: int = 1
    sequence: str
    tasks: tuple[Arrival, ...] = ()
    attempt: Annotated[str, Field(pattern=r"^[0-9a-f]*$")] = ""

    @property
    def content(self) -> bytes:
        """The bytes that are stored."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"

    def known(self, identity: str) -> Arrival | None:
        """The arrival of a task, not of its duplicates; None where it has not arrived."""
        for arrival in self.tasks:
            if arrival.identity == identity and arrival.state != "duplicate":
                return arrival
        return None

    def with_changed(self, number: int, **changes: object) -> "Arrivals":
        """The list with one entry changed."""
        tasks = list(self.tasks)
        tasks[number - 1] = tasks[number - 1].model_copy(update=changes)
        return self.model_copy(update={"tasks": tuple(tasks)})

    def with_added(self, arrival: Arrival) -> "Arrivals":
        """The list with one more entry, its number the next one."""
        numbered = arrival.model_copy(update={"number": len(self.tasks) + 1})
        return self.model_copy(update={"tasks": (*self.tasks, numbered)})


def arrivals_path(sequence: str) -> str:
    """Where the list is; SettingsError for a name that no sequence may have."""
    return f"{ARRIVALS}/{checked_name(sequence)}.json"


def list_arrivals(store: ObjectStore) -> list[str]:
    """The names of all sequences for which a task arrived, sorted."""
    files = (path.removeprefix(f"{ARRIVALS}/") for path in store.list(ARRIVALS))
    return sorted(file.removesuffix(".json") for file in files if file.endswith(".json"))


def arrivals_of(store: ObjectStore, sequence: str) -> Arrivals:
    """Read the list, empty where nothing arrived; StoreError when it cannot be trusted."""
    return _read(store, sequence)[0]


def change_arrivals(
    store: ObjectStore, sequence: str, change: Callable[[Arrivals], Arrivals]
) -> Arrivals:
    """Change the list in one step, again and again until nobody was in between; the new list.

    A change that returns the same list writes nothing; it may be asked more than once, also after
    it was made. Raises StoreError and what `change` raises.
    """
    for attempt in range(MAX_ATTEMPTS):
        found, version = _read(store, sequence)
        wanted = change(found)
        if wanted.tasks == found.tasks:
            return found
        wanted = wanted.model_copy(update={"attempt": secrets.token_hex(8)})
        if _swap(store, wanted, version):
            return wanted
        # The longer the queue, the longer the wait: who is too early costs everybody a request.
        time.sleep(random.uniform(0, min(1.0, 2 * _WAIT_SECONDS * 2**attempt)))  # noqa: S311
    raise StoreError(
        f"the arrivals of {sequence} in {store.url} changed {MAX_ATTEMPTS} times meanwhile; "
        "try again"
    )


def _swap(store: ObjectStore, wanted: Arrivals, version: str | None) -> bool:
    """Put the list in place, whatever becomes of the answers; False when it is too late.

    False may hide a success that others have changed meanwhile. The change is then asked again on
    what they left, and finds that there is nothing to do.
    """
    path = arrivals_path(wanted.sequence)
    for attempt in range(MAX_UNKNOWN):
        try:
            if store.compare_and_swap(path, wanted.content, version):
                return True
        except StoreError:
            if attempt == MAX_UNKNOWN - 1:
                raise
            time.sleep(_WAIT_SECONDS * 2**attempt)
        now, seen = _read(store, wanted.sequence)
        if now.attempt == wanted.attempt:
            return True
        if seen != version:
            return False
    raise StoreError(
        f"{store.url}/{path} does not take the version that it tells; try again once the store "
        "is well"
    )


def _read(store: ObjectStore, sequence: str) -> tuple[Arrivals, str | None]:
    path = arrivals_path(sequence)
    found = store.read_versioned(path)
    if found is None:
        return Arrivals(sequence=sequence), None
    return parsed_arrivals(found[0], sequence, f"{store.url}/{path}"), found[1]


def parsed_arrivals(data: bytes, sequence: str, where: str) -> Arrivals:
    """The list in such bytes; StoreError naming `where` when it is none of that sequence."""
    try:
        arrivals = Arrivals.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise StoreError(
            f"{where} cannot be read ({error.errors()[0]['msg']}); restore it from a backup"
        ) from None
    numbers = [arrival.number for arrival in arrivals.tasks]
    if arrivals.sequence != sequence or numbers != list(range(1, len(numbers) + 1)):
        raise StoreError(
            f"{where} is not the list of what arrived for {sequence}; restore it from a backup"
        )
    return arrivals
