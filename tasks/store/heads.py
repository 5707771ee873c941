"""Heads and their histories as they are stored, and reading them without trusting them.

    heads/<sequence>/head.json                the entry of the head, replaced by compare-and-swap
    heads/<sequence>/entries/<digest>.json    immutable: what the head was before

A history is a chain: each entry names the one before by its digest, so nobody can rewrite it
unseen.
"""

import re
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from gift_core.errors import SettingsError, StoreError
from gift_core.gate import Verdict
from tasks.manifests import OutputReference, Record, canonical_json, sha256_hex
from tasks.store.objects import ObjectStore

HEADS = "heads"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["promoted", "rolled-back", "overridden"]
R = TypeVar("R", bound=Record)


class ModelReference(Record):
    """A model of the store, and the digest that its manifest must have."""

    output: OutputReference
    digest: Digest


class Candidate(Record):
    """A model that may become a head, with all that it came from: output to manifest digest."""

    model: ModelReference
    lineage: dict[OutputReference, Digest]


class HeadEntry(Record):
    """What a head was from `time` on; `number` counts from 1, `previous` is a digest.

    `verdict` is the gate's, None where it was not asked. `restored` is the number of the entry
    that a rollback went back to. `attempt` tells two tries of the same from another.
    """

    schema_version: int = 1
    sequence: str
    number: int = Field(ge=1)
    kind: Kind
    model: ModelReference
    lineage: dict[OutputReference, Digest]
    previous: Digest | None
    verdict: Verdict | None
    reason: str
    actor: str
    time: str
    restored: int | None = None
    attempt: str

    @property
    def content(self) -> bytes:
        """The bytes that are stored."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the stored bytes: the entry's name."""
        return sha256_hex(self.content)


class Head(Record):
    """The entry that is the head, with its digest: nothing else would tell that it was altered."""

    entry: HeadEntry
    digest: Digest

    @property
    def content(self) -> bytes:
        """The bytes that are stored."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"


def list_sequences(store: ObjectStore) -> list[str]:
    """The names of all sequences that have a head, sorted."""
    paths = [path.split("/") for path in store.list(HEADS)]
    return sorted(parts[1] for parts in paths if len(parts) == 3 and parts[2] == "head.json")


def head_of(store: ObjectStore, sequence: str) -> HeadEntry | None:
    """Read the head of a sequence; None when it has none, StoreError when it cannot be trusted."""
    return read_head(store, sequence)[0]


def history_of(store: ObjectStore, sequence: str) -> list[HeadEntry]:
    """Read the whole history, newest first; StoreError where the chain is broken or altered."""
    head = head_of(store, sequence)
    return chain(store, head) if head else []


def chain(store: ObjectStore, head: HeadEntry) -> list[HeadEntry]:
    """Follow a head to its first entry; StoreError where the chain is broken or altered."""
    chain = [head]
    while (entry := before(store, chain[-1])) is not None:
        chain.append(entry)
    return chain


def before(store: ObjectStore, entry: HeadEntry) -> HeadEntry | None:
    """Read the entry before; None for the first, StoreError where the chain is broken."""
    if (entry.previous is None) != (entry.number == 1):
        raise StoreError(
            f"the history of {entry.sequence} in {store.url} is broken at entry {entry.number}; "
            "restore heads/ from a backup"
        )
    if entry.previous is None:
        return None
    return _read_entry(store, entry.sequence, entry.previous, entry.number - 1)


def read_head(store: ObjectStore, sequence: str) -> tuple[HeadEntry | None, str | None]:
    """Read the head with the version of its object, both None where there is none."""
    path = head_path(sequence)
    found = store.read_versioned(path)
    if found is None:
        return None, None
    head = _parse(Head, found[0], f"{store.url}/{path}")
    return _trusted(head.entry, head.digest, sequence, f"{store.url}/{path}"), found[1]


def _read_entry(store: ObjectStore, sequence: str, digest: str, number: int) -> HeadEntry:
    where = f"{store.url}/{entry_path(sequence, digest)}"
    data = store.read_bytes(entry_path(sequence, digest))
    entry = _trusted(_parse(HeadEntry, data, where), digest, sequence, where)
    if entry.number != number:
        raise StoreError(
            f"{where} is entry {entry.number}, not {number}; restore heads/ from a backup"
        )
    return entry


def _trusted(entry: HeadEntry, digest: str, sequence: str, where: str) -> HeadEntry:
    """The entry, when it is what was stored and belongs to the sequence; StoreError otherwise."""
    if entry.digest != digest:
        raise StoreError(
            f"{where} was altered: its SHA-256 is {entry.digest}, not {digest}; "
            "restore it from a backup"
        )
    if entry.sequence != sequence:
        raise StoreError(
            f"{where} is that of {entry.sequence}, not of {sequence}; restore heads/ from a backup"
        )
    return entry


def _parse(kind: type[R], data: bytes, where: str) -> R:
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise StoreError(
            f"{where} cannot be read ({error.errors()[0]['msg']}); restore it from a backup"
        ) from None


def head_path(sequence: str) -> str:
    """Where the head is; SettingsError for a name that no sequence may have."""
    return f"{HEADS}/{checked_name(sequence)}/head.json"


def entry_path(sequence: str, digest: str) -> str:
    """Where an entry is; SettingsError for a name that no sequence may have."""
    return f"{HEADS}/{checked_name(sequence)}/entries/{digest}.json"


def checked_name(sequence: str) -> str:
    """The name; SettingsError when no sequence may have it: it becomes a part of paths."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", sequence):
        raise SettingsError(
            f"{sequence!r} is no name of a sequence: lower-case letters, digits, - and _"
        )
    return sequence
