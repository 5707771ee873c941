"""The outputs of a whole sequence in the order of the work, as its report tells them."""

from dataclasses import dataclass
from typing import TypeVar

from gift_core.errors import StoreError
from tasks.manifests import (
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    RunRecord,
    ScoresManifest,
    SequenceManifest,
    ShardManifest,
)
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output, read_run_record

M = TypeVar("M", bound=Manifest)


@dataclass(frozen=True)
class Entry:
    """One output of a run, whose row it stands in, and what is known of its making."""

    manifest: Manifest
    task: str | None
    record: RunRecord | None

    @property
    def stage(self) -> str:
        """The stage that a person asked for: shards are part of synthesize."""
        return self.manifest.stage.removesuffix("-shard")

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
    owners: list[tuple[str | None, Manifest]] = []
    for made in pairs:
        keys = dict.fromkeys(ref.path.split("/")[2] for ref in made.files)
        shards = [find_output(store, ShardManifest, "synthesize-shard", key) for key in keys]
        owners += [(made.task, shard) for shard in shards if shard is not None]
        owners.append((made.task, made))
    owners += [(model.task, model) for model in models]
    owners += [(fisher.name, fisher) for fisher in fishers]
    owners += [(row.after_task, row) for row in scores]
    order: list[str | None] = [None, *manifest.tasks]
    owners.sort(key=lambda owner: order.index(owner[0]))
    owners.append((None, manifest))
    return [Entry(each, task, read_run_record(store, each)) for task, each in owners]


def _output(store: ObjectStore, kind: type[M], reference: str) -> M:
    stage, key = reference.split("/")
    found = find_output(store, kind, stage, key)
    if found is None:
        raise StoreError(
            f"{store.url}: the output {stage} {key[:12]} is gone or damaged; run the sequence again"
        )
    return found
