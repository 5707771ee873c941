"""The page of one output: its settings, inputs, files, and what there is to see of its kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployments.dashboard.reading import Known, NotFound, Shelf, in_parallel, read_manifest
from gift_core.errors import GiftError, StoreError
from tasks.curves import first_and_last, loss_figure, steering_figure
from tasks.figures import contact_sheet, drift_figure
from tasks.images import decode_rgb
from tasks.manifests import (
    FileRef,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    ShardManifest,
)
from tasks.report import thumbnail
from tasks.store.history import read_history
from tasks.store.objects import ObjectStore
from tasks.store.outputs import read_run_record
from tasks.store.shards import ReplayPair, first_pairs

NUM_PAIRS = 24
"""Replay pairs on a page; they are the first of a shard, and prompts were drawn at random."""
NUM_IN_SHEET = 8
MAX_FILES = 200
NUMBERS = (LookupError, ValueError, TypeError, ArithmeticError)
"""What drawing raises over a history whose columns do not fit each other."""


@dataclass(frozen=True)
class File:
    """A file of an output and whether the store has it: "", or what is wrong."""

    ref: FileRef
    problem: str


@dataclass(frozen=True)
class Input:
    """What an output was made from: its role, its digest, and where its page is if it has one."""

    role: str
    digest: str
    reference: str | None


def output_page(shelf: Shelf, name: str, stage: str, key: str) -> dict[str, Any]:
    """Everything about one output. NotFound, and StoreError for a manifest that is none."""
    known = shelf.sequence(name)
    store = shelf.store
    manifest = read_manifest(store, f"{stage}/{key}")
    notes: list[str] = []
    return {
        "known": known,
        "manifest": manifest,
        "record": _or_note(notes, None, lambda: read_run_record(store, manifest)),
        "inputs": _inputs(known, manifest),
        "files": in_parallel(lambda ref: _file(store, ref), manifest.files[:MAX_FILES]),
        "samples": _or_note(notes, [], lambda: _samples(store, manifest)),
        "losses": _or_note(notes, [], lambda: _losses(store, manifest)),
        "notes": notes,
    }


def figure(shelf: Shelf, stage: str, key: str, kind: str) -> bytes:
    """A figure of an output as SVG; NotFound where its kind has no such figure."""
    manifest = read_manifest(shelf.store, f"{stage}/{key}")
    if isinstance(manifest, FisherManifest) and kind == "drift":
        return drift_figure(manifest.drift)
    draw = {"losses": loss_figure, "steering": steering_figure}.get(kind)
    if draw is None or not isinstance(manifest, ModelManifest) or manifest.task is None:
        raise NotFound(f"{stage}/{key[:16]} has no figure {kind!r}.")
    try:
        return draw(read_history(shelf.store, manifest))
    except NUMBERS as error:
        raise _odd_history(shelf.store, manifest, error) from None


def sheet(shelf: Shelf, key: str) -> bytes:
    """The first replay pairs of a task as one PNG; NotFound, StoreError."""
    manifest = read_manifest(shelf.store, f"synthesize/{key}")
    pairs = _first(shelf.store, manifest, NUM_IN_SHEET)
    if not pairs:
        raise NotFound(f"synthesize/{key[:16]} has no pairs.")
    images = [decode_rgb(pair.image_bytes, f"replay pair {pair.index}") for pair in pairs]
    return contact_sheet(images, columns=NUM_IN_SHEET)


def _samples(store: ObjectStore, manifest: Manifest) -> list[tuple[ReplayPair, str]]:
    """The first pairs of a shard or of a task, each with a small picture as a `data:` address."""
    return [(pair, thumbnail(pair)) for pair in _first(store, manifest, NUM_PAIRS)]


def _first(store: ObjectStore, manifest: Manifest, count: int) -> list[ReplayPair]:
    if not isinstance(manifest, PairsManifest | ShardManifest) or not manifest.files:
        return []
    return first_pairs(store, manifest.files[0].path, count)


def _losses(store: ObjectStore, manifest: Manifest) -> list[tuple[str, float, float]]:
    """Loss terms of a learnt model that its method uses: mean of the first and the last tenth."""
    if not isinstance(manifest, ModelManifest) or manifest.task is None:
        return []
    try:
        rows = first_and_last(read_history(store, manifest))
    except NUMBERS as error:
        raise _odd_history(store, manifest, error) from None
    return [row for row in rows if row[1] or row[2]]


def _odd_history(store: ObjectStore, manifest: Manifest, error: Exception) -> StoreError:
    return StoreError(
        f"{store.url}/{manifest.directory} holds no history of losses that can be read ({error})"
    )


def _inputs(known: Known, manifest: Manifest) -> list[Input]:
    """The inputs, with a link to each that the sequence knows or that is one of its shards."""
    references = known.references
    shards = dict.fromkeys("/".join(ref.path.split("/")[1:3]) for ref in manifest.files)
    found = [
        Input(role, digest, references.get(digest)) for role, digest in manifest.inputs.items()
    ]
    if isinstance(manifest, PairsManifest) and len(shards) == len(found):
        return [
            Input(each.role, each.digest, shard) for each, shard in zip(found, shards, strict=True)
        ]
    return found


def _file(store: ObjectStore, ref: FileRef) -> File:
    try:
        num_bytes = store.size(ref.path)
    except StoreError as error:
        return File(ref, str(error))
    if num_bytes is None:
        return File(ref, "missing")
    return File(ref, "" if num_bytes == ref.num_bytes else f"has {num_bytes:,} bytes")


def _or_note(notes: list[str], otherwise: Any, read: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What is read, or `otherwise` with a note of why it could not be."""
    try:
        return read()
    except GiftError as error:
        notes.append(str(error))
        return otherwise
