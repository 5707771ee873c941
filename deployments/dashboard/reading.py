"""What the pages know of a store: few requests each, and what cannot be read is a sentence.

Nothing here hashes files or reads weights: `gift verify` does that.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from gift_core.errors import GiftError, StoreError
from tasks.manifests import (
    Manifest,
    ModelManifest,
    RunRecord,
    ScoresManifest,
    SequenceManifest,
    output_directory,
)
from tasks.report import load_sequence_manifest, report_path
from tasks.standing import Standing, standing_of_run, standing_of_scores
from tasks.store.heads import HEADS, HeadEntry, history_of
from tasks.store.inventory import KINDS
from tasks.store.objects import ObjectStore
from tasks.store.outputs import read_run_record

MAX_RUNS = 500
"""Runs of a store that are looked through for a sequence's own."""
_NUM_READERS = 8

T = TypeVar("T")
R = TypeVar("R")


class NotFound(Exception):  # noqa: N818 - it is a page, not a failure
    """There is no such page; its text is the sentence that is shown."""


@dataclass(frozen=True)
class Known:
    """A sequence as far as it can be read; `notes` say what cannot, a sentence each.

    `run` is what its report says, None while there is none; `history` is newest first.
    """

    store: ObjectStore
    name: str
    history: tuple[HeadEntry, ...]
    run: SequenceManifest | None
    notes: tuple[str, ...]

    @property
    def head(self) -> HeadEntry | None:
        """The entry of the model that may be used."""
        return self.history[0] if self.history else None

    @cached_property
    def head_model(self) -> ModelManifest | None:
        """The manifest of the head's model; None when there is none or it cannot be read."""
        if self.head is None:
            return None
        try:
            model = read_manifest(self.store, self.head.model.output)
        except (GiftError, NotFound):
            return None
        return model if isinstance(model, ModelManifest) else None

    @cached_property
    def standing(self) -> Standing | None:
        """The matrix of the run, or what the head's lineage has of it while the run goes on."""
        if self.run is not None:
            return standing_of_run(self.run)
        lineage = self.head.lineage if self.head else {}
        return standing_of_scores(rows_of(self.store, lineage))

    @property
    def references(self) -> dict[str, str]:
        """The outputs that the sequence is known to rest on, by the digest of their manifests."""
        found = {
            digest: reference
            for entry in self.history
            for reference, digest in entry.lineage.items()
        }
        if self.run is not None:
            groups = {
                "model": self.run.models,
                "pairs": self.run.pairs,
                "fisher": self.run.fishers,
                "scores": self.run.scores,
                "adapter": self.run.adapters,
            }
            for role, group in groups.items():
                for number, reference in enumerate(group):
                    found[self.run.inputs.get(f"{role}-{number:02d}", "")] = reference
        return found


@dataclass(frozen=True)
class Run:
    """An earlier or present run of a sequence: its manifest and when it was made."""

    manifest: SequenceManifest
    record: RunRecord | None

    @property
    def started(self) -> str:
        """When it was made, "" where nobody knows; sorts as time does."""
        return self.record.started if self.record else ""


@dataclass
class Shelf:
    """A store with what the pages keep in mind of it: manifests of runs, which never change."""

    store: ObjectStore
    _runs: dict[str, SequenceManifest] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Every sequence that has a head or a report; StoreError when the store is away."""
        heads = [path.split("/") for path in self.store.list(HEADS)]
        reports = [path.split("/") for path in self.store.list("reports")]
        named = {parts[1] for parts in heads if len(parts) == 3 and parts[2] == "head.json"}
        return sorted(named | {p[1] for p in reports if len(p) == 3 and p[2] == "sequence.json"})

    def sequence(self, name: str) -> Known:
        """One of them. NotFound when there is none, StoreError when nothing of it can be read."""
        known = know(self.store, name)
        if known.head is None and known.run is None:
            if name in self.names():
                raise StoreError(known.notes[0] if known.notes else f"{name} cannot be read")
            raise NotFound(f"No sequence is called {name!r} in {self.store.url}.")
        return known

    def runs(self, name: str) -> list[Run]:
        """The runs of a sequence that the store has, newest first; damaged ones are left out."""
        paths = [p.split("/") for p in self.store.list("outputs/report")]
        keys = [parts[2] for parts in paths if len(parts) == 4 and parts[3] == "manifest.json"]
        manifests = [m for m in in_parallel(self._run, keys[:MAX_RUNS]) if m and m.name == name]
        runs = in_parallel(lambda m: Run(m, _record(self.store, m)), manifests)
        return sorted(runs, key=lambda run: run.started, reverse=True)

    def run(self, key: str) -> SequenceManifest:
        """One run by its key; NotFound, and StoreError for a damaged manifest."""
        manifest = read_manifest(self.store, f"report/{key}")
        assert isinstance(manifest, SequenceManifest)  # noqa: S101 - KINDS says so
        return manifest

    def _run(self, key: str) -> SequenceManifest | None:
        if key not in self._runs:
            try:
                self._runs[key] = self.run(key)
            except (GiftError, NotFound):
                return None
        return self._runs[key]


def know(store: ObjectStore, name: str) -> Known:
    """Read head, history and report of a sequence; what cannot be read becomes a note."""
    notes: list[str] = []
    history = _noted(notes, (), lambda: tuple(history_of(store, name)))
    run = None
    if _noted(notes, False, lambda: store.exists(report_path(name, "sequence.json"))):
        run = _noted(notes, None, lambda: load_sequence_manifest(store, name))
    return Known(store, name, history, run, tuple(dict.fromkeys(notes)))


def read_manifest(store: ObjectStore, reference: str) -> Manifest:
    """The manifest of an output "<stage>/<key>", whether or not its files are there.

    NotFound when there is none; StoreError, in one sentence, when it is not what it should be.
    """
    stage, _, key = reference.partition("/")
    path = f"{output_directory(stage, key)}/manifest.json"
    found = store.read_versioned(path) if stage in KINDS else None
    if found is None:
        raise NotFound(f"There is no output {stage}/{key[:16]} in {store.url}.")
    try:
        manifest = KINDS[stage].model_validate_json(found[0], strict=True)
    except ValidationError as error:
        raise StoreError(
            f"{store.url}/{path} cannot be read as a manifest ({error.errors()[0]['msg']}); "
            "run the sequence again, it is made anew"
        ) from None
    if (manifest.stage, manifest.key) != (stage, key):
        raise StoreError(f"{store.url}/{path} is the manifest of another output")
    return manifest


def rows_of(store: ObjectStore, lineage: Iterable[str]) -> list[ScoresManifest]:
    """The rows of accuracies among some outputs; those that cannot be read are left out."""

    def read(reference: str) -> Manifest | None:
        try:
            return read_manifest(store, reference)
        except (GiftError, NotFound):
            return None

    references = [each for each in lineage if each.startswith("evaluate/")]
    return [row for row in in_parallel(read, references) if isinstance(row, ScoresManifest)]


def in_parallel(read: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Read many small objects at once: object storage answers each in milliseconds."""
    if len(items) < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(read, items))


def _record(store: ObjectStore, manifest: Manifest) -> RunRecord | None:
    try:
        return read_run_record(store, manifest)
    except StoreError:
        return None


def _noted(notes: list[str], otherwise: T, read: Callable[[], T]) -> T:
    """What is read, or `otherwise` with a note of why it could not be."""
    try:
        return read()
    except GiftError as error:
        notes.append(str(error))
        return otherwise
