"""The outputs of a whole sequence in the order of the work, as its report tells them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from gift_core.errors import StoreError
from tasks.manifests import (
    PART_OF,
    AdapterManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    RetrievalManifest,
    RunRecord,
    ScoreManifest,
    ScoresManifest,
    SequenceManifest,
    ShardManifest,
)
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output, read_run_record

M = TypeVar("M", bound=Manifest)

PARTS: dict[str, type[Manifest]] = {
    "synthesize-shard": ShardManifest,
    "score": ScoreManifest,
    "retrieve": RetrievalManifest,
}


@dataclass(frozen=True)
class Entry:
    """One output of a run, whose row it stands in, and what is known of its making."""

    manifest: Manifest
    task: str | None
    record: RunRecord | None

    @property
    def stage(self) -> str:
        """The stage that a person asked for: shards are part of synthesize, scores of evaluate."""
        return PART_OF.get(self.manifest.stage, self.manifest.stage)

    @property
    def seconds(self) -> float:
        """How long it took; 0 where nobody knows."""
        return self.record.seconds if self.record else 0.0

    @property
    def num_bytes(self) -> int:
        """What its own files take; files that it borrows from other outputs are theirs."""
        own = f"{self.manifest.directory}/"
        return sum(ref.num_bytes for ref in self.manifest.files if ref.path.startswith(own))


def entries_of(store: ObjectStore, manifest: SequenceManifest) -> list[Entry]:
    """Every output of the run, task by task in the order of the work; StoreError for a lost one."""
    models = [_output(store, ModelManifest, reference) for reference in manifest.models]
    pairs = [_output(store, PairsManifest, reference) for reference in manifest.pairs]
    fishers = [_output(store, FisherManifest, reference) for reference in manifest.fishers]
    scores = [_output(store, ScoresManifest, reference) for reference in manifest.scores]
    adapters = [_output(store, AdapterManifest, reference) for reference in manifest.adapters]
    owners: list[tuple[str | None, Manifest]] = []
    for made in pairs:
        owners += [(made.task, shard) for shard in _parts(store, made)]
        owners.append((made.task, made))
    owners += [(made.task, made) for made in (*models, *adapters)]
    owners += [(fisher.name, fisher) for fisher in fishers]
    for row in scores:
        owners += [(row.after_task, part) for part in _parts(store, row)]
        owners.append((row.after_task, row))
    order: list[str | None] = [None, *manifest.tasks]
    owners.sort(key=lambda owner: order.index(owner[0]))
    owners.append((None, manifest))
    return [Entry(each, task, read_run_record(store, each)) for task, each in owners]


def _parts(store: ObjectStore, whole: Manifest) -> Iterator[Manifest]:
    """The outputs whose files another one joins; what is gone was found to be when it was read."""
    for stage, key in dict.fromkeys(tuple(ref.path.split("/")[1:3]) for ref in whole.files):
        part = find_output(store, PARTS[stage], stage, key) if stage in PARTS else None
        if part is not None:
            yield part


def _output(store: ObjectStore, kind: type[M], reference: str) -> M:
    stage, key = reference.split("/")
    found = find_output(store, kind, stage, key)
    if found is None:
        raise StoreError(
            f"{store.url}: the output {stage} {key[:12]} is gone or damaged; run the sequence again"
        )
    return found
