"""Broken inputs from a store: each is a value or one sentence, soon, and no file elsewhere.

With test_fuzz_files.py there are more than ten thousand. `make test` always draws the same inputs.
Others, and more, are drawn with

    python -m pytest tests/hostile/test_fuzz_store.py -p tests.hostile.more --hypothesis-seed 7
"""

import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save

from deployments.tables import matrix_table, metrics_table
from tasks.manifests import (
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    SequenceManifest,
    ShardManifest,
)
from tasks.report import load_sequence_manifest, report
from tasks.store import registry
from tasks.store.arrivals import Arrival, arrivals_of, change_arrivals
from tasks.store.heads import Candidate, ModelReference, history_of
from tasks.store.objects import FolderStore
from tasks.store.outputs import find_output, read_run_record
from tasks.store.shards import ReplayPair, read_shard, write_shard
from tasks.store.step_checkpoints import StepCheckpoints
from tests.hostile.harness import Inputs, inputs, read
from tests.hostile.mutations import Json, changed, flipped
from tests.tasks.conftest import made_up_run
from tests.worlds import png, square

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("begun")]
NUM_INPUTS = 4_000
TASK = {
    "name": "birds",
    "data": {"kind": "parquet", "path": "data/birds"},
    "class_names": ["finch", "owl"],
}


# Shards


def shard(folder: Path) -> bytes:
    pairs = [ReplayPair(png(square("red", n)), f"p {n}", n, "g", "warm", n) for n in range(4)]
    write_shard(folder / "shard.parquet", pairs)
    return (folder / "shard.parquet").read_bytes()


@pytest.fixture(scope="module")
def a_shard(folder: Path) -> bytes:
    return shard(folder)


@inputs(1000)
@given(data=st.data())
def test_shards(folder: Path, a_shard: bytes, data: st.DataObject) -> None:
    broken = data.draw(flipped([a_shard], start=-2500))
    read(lambda: read_shard(broken, "shard 7"), folder)


@pytest.fixture(scope="module")
def store(folder: Path) -> FolderStore:
    store = FolderStore(folder / "store")
    run = made_up_run(store)
    report.fn(*run.arguments)
    for model in run.models[1:]:
        reference = ModelReference(output=f"{model.stage}/{model.key}", digest=model.digest)
        lineage = {reference.output: reference.digest}
        candidate = Candidate(model=reference, lineage=lineage)
        registry.promote(store, "little", candidate, reason="", actor="test")
    arrived = Arrival(number=1, name="birds", identity="0" * 64, settings=TASK, digests={})
    change_arrivals(store, "little", lambda found: found.with_added(arrived))
    return store


class Overwritten:
    """A JSON object of a store that is put back afterwards."""

    def __init__(self, store: FolderStore, pattern: str) -> None:
        self.path = sorted(store.root.glob(pattern))[0]
        self._whole = self.path.read_bytes()
        self.json = json.loads(self._whole)

    def __enter__(self) -> "Overwritten":
        return self

    def put(self, content: Json) -> None:
        self.path.write_text(json.dumps(content))

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self._whole)


def shown(manifest: SequenceManifest) -> None:
    console = Console(file=io.StringIO())
    console.print(matrix_table(manifest))
    console.print(metrics_table([manifest]))


@inputs(500)
@given(data=st.data())
def test_sequence_manifests(folder: Path, store: FolderStore, data: st.DataObject) -> None:
    with Overwritten(store, "reports/little/sequence.json") as file:
        file.put(data.draw(changed(file.json)))
        read(lambda: shown(load_sequence_manifest(store, "little")), folder)


@pytest.mark.parametrize(
    "kind", [ModelManifest, PairsManifest, ShardManifest, FisherManifest, ScoresManifest]
)
@inputs(260)
@given(data=st.data())
def test_manifests(
    folder: Path, store: FolderStore, kind: type[Manifest], data: st.DataObject
) -> None:
    stage = kind.model_fields["stage"].default or "finetune"
    stage = stage if isinstance(stage, str) else "finetune"
    with Overwritten(store, f"outputs/{stage}/*/manifest.json") as file:
        file.put(data.draw(changed(file.json)))

        def use() -> None:
            found = find_output(store, kind, stage, file.path.parent.name)
            if found is not None:
                assert len(found.digest) == 64
                read_run_record(store, found)

        read(use, folder)


@inputs(300)
@given(data=st.data())
def test_run_records(folder: Path, store: FolderStore, data: st.DataObject) -> None:
    with Overwritten(store, "outputs/evaluate/*/run.json") as file:
        manifest = find_output(store, ScoresManifest, "evaluate", file.path.parent.name)
        assert manifest is not None
        file.put(data.draw(changed(file.json)))
        read(lambda: read_run_record(store, manifest), folder)


@pytest.mark.parametrize("pattern", ["heads/little/head.json", "heads/little/entries/*.json"])
@inputs(250)
@given(data=st.data())
def test_heads(folder: Path, store: FolderStore, pattern: str, data: st.DataObject) -> None:
    with Overwritten(store, pattern) as file:
        file.put(data.draw(changed(file.json)))
        read(lambda: history_of(store, "little"), folder)


@inputs(200)
@given(data=st.data())
def test_arrivals(folder: Path, store: FolderStore, data: st.DataObject) -> None:
    with Overwritten(store, "arrivals/little.json") as file:
        file.put(data.draw(changed(file.json)))
        read(lambda: arrivals_of(store, "little"), folder)


@pytest.fixture(scope="module")
def checkpoints(folder: Path, store: FolderStore) -> StepCheckpoints:
    key = sorted((store.root / "outputs/finetune").glob("*"))[0].name
    manifest = find_output(store, ModelManifest, "finetune", key)
    assert manifest is not None
    (folder / "state").write_bytes(save({"a": torch.zeros(2, 3)}))
    checkpoints = StepCheckpoints(store, manifest)
    checkpoints.save(2, folder / "state", {"step": [1, 2]})
    return checkpoints


@inputs(250)
@given(data=st.data())
def test_checkpoints(
    folder: Path, store: FolderStore, checkpoints: StepCheckpoints, data: st.DataObject
) -> None:
    with Overwritten(store, "checkpoints/finetune/*/latest.json") as file:
        file.put(data.draw(changed(file.json)))
        read(lambda: checkpoints.fetch(folder / "fetched"), folder)


def test_so_many_inputs_were_read(begun: tuple[int, int]) -> None:
    """Runs last: the file is one worker's, from top to bottom."""
    num, num_refused = Inputs.num - begun[0], Inputs.num_refused - begun[1]
    print(f"{num} inputs, {num_refused} refused")
    assert num >= NUM_INPUTS
    assert num / 4 < num_refused < num, "neither all refused nor none"
