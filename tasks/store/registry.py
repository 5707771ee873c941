"""The registry: each sequence has a head, the model that production may use, and its history.

Going back is a new entry: history is never rewritten. The head is laid among the entries first,
then replaced: whoever is killed or comes too late leaves nothing that is not history already.
"""

import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from gift_core.errors import SettingsError, StoreError
from gift_core.gate import Verdict
from tasks.store.heads import (
    Candidate,
    Head,
    HeadEntry,
    Kind,
    before,
    chain,
    entry_path,
    head_path,
    read_head,
)
from tasks.store.objects import ObjectStore

MAX_ATTEMPTS = 100
MAX_UNKNOWN = 5
"""Connections lost in a row while the head is moved, before the caller is told."""
_WAIT_SECONDS = 0.05


def promote(
    store: ObjectStore,
    sequence: str,
    candidate: Candidate,
    *,
    reason: str,
    actor: str,
    verdict: Verdict | None = None,
    again: bool = True,
) -> HeadEntry | None:
    """Make a model the head of a sequence; the new entry, or None when nothing was to be done.

    A model that is the head already is left alone. With `again` False, so is one that was passed
    meanwhile: the head descends from it, or somebody rolled back from it or from a parent of it.
    The kind is "overridden" when `verdict` is a refusal. Raises StoreError, and SettingsError for a
    bad name.
    """

    def build(head: HeadEntry | None) -> HeadEntry | None:
        if head is not None and head.model == candidate.model:
            return None
        if head is not None and not again and _is_past(store, head, candidate):
            return None
        refused = verdict is not None and not verdict.promoted
        kind: Kind = "overridden" if refused else "promoted"
        return _entry(sequence, head, kind, candidate, verdict, reason, actor)

    return _advance(store, sequence, build)


def rollback(
    store: ObjectStore, sequence: str, *, to: int | None = None, reason: str, actor: str
) -> HeadEntry | None:
    """Make an earlier model the head again: the one before, or that of the entry with number `to`.

    It is a new entry, and the model before a restored one is the one before it back then, so that
    going back twice goes back twice. None when that model is the head already. Raises
    SettingsError when there is no such entry, StoreError, also when the head moved meanwhile.
    """
    seen: list[str] = []

    def build(head: HeadEntry | None) -> HeadEntry | None:
        if head is None:
            raise SettingsError(f"{sequence} has no head in {store.url}; nothing to roll back")
        if seen and head.digest not in seen:
            raise StoreError(
                f"the head of {sequence} in {store.url} moved meanwhile, to entry {head.number}; "
                "read its log and decide again"
            )
        seen.append(head.digest)
        target = _target(chain(store, head), to)
        if target.model == head.model:
            return None
        candidate = Candidate(model=target.model, lineage=target.lineage)
        entry = _entry(sequence, head, "rolled-back", candidate, target.verdict, reason, actor)
        return entry.model_copy(update={"restored": target.number})

    return _advance(store, sequence, build)


def _entry(
    sequence: str,
    head: HeadEntry | None,
    kind: Kind,
    candidate: Candidate,
    verdict: Verdict | None,
    reason: str,
    actor: str,
) -> HeadEntry:
    return HeadEntry(
        sequence=sequence,
        number=head.number + 1 if head else 1,
        kind=kind,
        model=candidate.model,
        lineage=candidate.lineage,
        previous=head.digest if head else None,
        verdict=verdict,
        reason=reason,
        actor=actor,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        attempt=secrets.token_hex(8),
    )


def _is_past(store: ObjectStore, head: HeadEntry, candidate: Candidate) -> bool:
    """Whether the head descends from the model, or somebody rolled back from it or from a parent.

    Newest first, the first entry that the model is or descends from tells: it is what a rollback
    left, or it stands. What the head itself descends from is not asked, every candidate has that.
    """
    if candidate.model.output in head.lineage:
        return True
    shared, line = {head.model.output, *head.lineage}, {candidate.model.output, *candidate.lineage}
    rolled_back = False
    for entry in chain(store, head):
        if entry.model.output in line - shared:
            return rolled_back
        rolled_back |= entry.kind == "rolled-back"
    return False


def _target(history: list[HeadEntry], to: int | None) -> HeadEntry:
    """The entry to go back to."""
    by_number = {entry.number: entry for entry in history}
    head = history[0]
    if to is not None:
        if to not in by_number:
            raise SettingsError(
                f"{head.sequence} has no entry {to}; its entries are 1 to {head.number}"
            )
        entry = by_number[to]
        return by_number[entry.restored] if entry.restored else entry
    entry = head
    while entry.model == head.model:
        number = (entry.restored or entry.number) - 1
        if number not in by_number:
            raise SettingsError(
                f"{head.sequence} has no model before {head.model.output}; name an entry of its log"
            )
        entry = by_number[number]
    return by_number[entry.restored] if entry.restored else entry


def _advance(
    store: ObjectStore, sequence: str, build: Callable[[HeadEntry | None], HeadEntry | None]
) -> HeadEntry | None:
    """Move the head to what `build` makes of it, again and again until nobody was in between."""
    for attempt in range(MAX_ATTEMPTS):
        head, version = read_head(store, sequence)
        entry = build(head)
        if entry is None:
            return None
        if head is not None:
            store.put_if_absent(entry_path(sequence, head.digest), head.content)
        if _move(store, entry, version):
            return entry
        # The longer the queue, the longer the wait: who is too early costs everybody a request.
        time.sleep(random.uniform(0, min(1.0, 2 * _WAIT_SECONDS * 2**attempt)))  # noqa: S311
    raise StoreError(
        f"the head of {sequence} in {store.url} moved {MAX_ATTEMPTS} times meanwhile; try again"
    )


def _move(store: ObjectStore, entry: HeadEntry, version: str | None) -> bool:
    """Make an entry the head, whatever becomes of the answers; False when it is too late.

    The head holds its own digest, and with it the attempt's number, so reading it again tells who
    came first. While it has not moved, the same request may still be under way: it is repeated.
    """
    path, content = head_path(entry.sequence), Head(entry=entry, digest=entry.digest).content
    for attempt in range(MAX_UNKNOWN):
        try:
            if store.compare_and_swap(path, content, version):
                return True
        except StoreError:
            if attempt == MAX_UNKNOWN - 1:
                raise
            time.sleep(_WAIT_SECONDS * 2**attempt)
        head, now = read_head(store, entry.sequence)
        if now != version:
            return _holds(store, head, entry)
    raise StoreError(
        f"{store.url}/{path} does not take the version that it tells; "
        "run `gift status` once the store is well"
    )


def _holds(store: ObjectStore, head: HeadEntry | None, entry: HeadEntry) -> bool:
    """Whether the entry is in the chain behind the head."""
    while head is not None and head.number > entry.number:
        head = before(store, head)
    return head is not None and head.digest == entry.digest
