"""The whole method as flows: a folder and object storage give the same manifests, once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.filesystems import RemoteFileSystem

from deployments.seaweed import Endpoint
from flows.continual_sequence import continual_sequence
from flows.dispatch import SequenceResult
from flows.storage import sequence_store
from gift_core.errors import Refused, SettingsError
from gift_core.gate import GatePolicy
from tasks.manifests import sha256_hex
from tasks.report import load_sequence_manifest, report_address
from tasks.sequence import SequenceSettings, StoreSettings
from tasks.store.heads import head_of, history_of
from tasks.store.objects import ObjectStore
from tasks.store.verify import verify_store
from tests.worlds import ROOT, tiny_sequence

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("prefect_api")]
NUM_OUTPUTS = 12  # theta_0, 3 rows, 2 x (pairs, model, Fisher), sequence
NUM_PARTS = 4 + 9 + 2  # shards, a score for each row and data set, retrievals


@pytest.fixture(scope="module")
def in_folder(
    prefect_api: None, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SequenceSettings, SequenceResult]:
    store = tmp_path_factory.mktemp("flows") / "store"
    sequence = tiny_sequence(tiny_data, str(store))
    return sequence, continual_sequence(sequence=sequence)


@pytest.fixture
def bucket(endpoint: Endpoint) -> str:
    return f"s3://{endpoint.bucket}"


def manifests(store: ObjectStore) -> dict[str, str]:
    paths = [path for path in store.list("outputs") if path.endswith("manifest.json")]
    return {path: sha256_hex(store.read_bytes(path)) for path in paths}


def test_a_sequence_gives_a_full_matrix_and_a_report(
    in_folder: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, result = in_folder
    manifest = result.manifest
    assert (result.num_computed, result.num_reused) == (NUM_OUTPUTS - 1, 0)
    assert (len(manifest.matrix), len(manifest.matrix[0])) == (2, 2)
    assert len(manifest.panel["panel"]) == 3
    assert len(manifest.fishers) == len(manifest.pairs) == 2
    assert "tiny" in Path(report_address(sequence_store(sequence.store), "tiny")).read_text()


def test_a_second_run_computes_nothing_and_says_so(
    in_folder: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, first = in_folder
    store = sequence_store(sequence.store)
    before = {path: store.read_bytes(path) for path in store.list("")}
    again = continual_sequence(sequence=sequence)
    assert (again.num_computed, again.num_reused) == (0, NUM_OUTPUTS - 1)
    assert again.manifest == first.manifest
    assert again.summary == "tiny: nothing to recompute, all 11 found in the store"
    assert {path: store.read_bytes(path) for path in store.list("")} == before


SWEEPS = """
import sys, time
from threading import Thread
from gift_core.errors import StoreError
from tasks.store.address import open_store
from tasks.store.sweep import find_unreferenced, sweep

store, done = open_store(sys.argv[1]), []
Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
num_sweeps = num_removed = 0
print("ready", flush=True)
while not done:
    found = find_unreferenced(store, 0)
    try:
        num_removed += sweep(store, found)
    except StoreError as error:
        assert "a run began" in str(error), error
    num_sweeps += 1
    time.sleep(0.1)
print(num_sweeps, num_removed)
"""


@contextmanager
def sweeping(url: str) -> Iterator[list[int]]:
    """`gift gc --delete --older-than 0s` again and again, in a process of its own."""
    program = [sys.executable, "-c", SWEEPS, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    counts: list[int] = []
    with subprocess.Popen(program, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        try:
            yield counts
        finally:
            out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        counts += [int(word) for word in out.split()]


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_every_store_holds_the_same_manifests_whatever_is_swept_meanwhile(
    in_folder: tuple[SequenceSettings, SequenceResult],
    place: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Digest for digest, and with no grace at all: the run holds a lease. What nobody uses goes."""
    sequence, undisturbed = in_folder
    in_bucket = place == "s3"
    url = f"{request.getfixturevalue('bucket')}/tiny" if in_bucket else str(tmp_path / "swept")
    swept = sequence.model_copy(update={"store": StoreSettings(url=url)})
    store = sequence_store(swept.store)
    store.put_if_absent(f"outputs/finetune/{'0' * 64}/lost/model", b"of a run that was killed")
    with sweeping(url) as counts:
        result = continual_sequence(sequence=swept)
    num_sweeps, num_removed = counts
    assert num_sweeps >= NUM_OUTPUTS, "a sweep for each stage, or nothing was tried"
    assert num_removed == 1
    assert (result.num_reused, result.manifest) == (0, undisturbed.manifest)
    expected = manifests(sequence_store(sequence.store))
    assert manifests(store) == expected
    assert len(expected) == NUM_OUTPUTS - 1 + NUM_PARTS
    assert verify_store(store).damages == ()
    assert store.list("leases") == []


def test_each_task_moves_the_head_and_a_second_run_does_not(
    in_folder: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, result = in_folder
    store = sequence_store(sequence.store)
    history = history_of(store, "tiny")
    assert [entry.model.output for entry in history] == list(result.manifest.models[:0:-1])
    assert set(history[0].lineage) == {
        *result.manifest.models,
        *result.manifest.pairs,
        *result.manifest.fishers,
        *result.manifest.scores,
    }
    assert history[0].actor.startswith("flow run ")
    found = verify_store(store)
    assert (found.damages, found.num_entries) == ((), 2)


def test_a_refused_model_stops_the_sequence_and_an_override_lets_it_pass(
    in_folder: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, _ = in_folder
    store = sequence_store(sequence.store)
    gated = sequence.model_copy(update={"name": "gated", "gate": GatePolicy(min_gain=100)})
    with pytest.raises(Refused, match="gated: the gate refused the model after warm: warm went"):
        continual_sequence(sequence=gated)
    assert head_of(store, "gated") is None
    stopped = load_sequence_manifest(store, "gated")
    assert (stopped.tasks, len(stopped.refused)) == (("warm",), 1)
    passed = continual_sequence(sequence=gated, override="a test")
    assert (passed.num_computed, passed.manifest.refused) == (1, ())
    assert {entry.kind for entry in history_of(store, "gated")} == {"overridden"}
    assert continual_sequence(sequence=gated).num_computed == 0, "a person's word holds"
    assert len(history_of(store, "gated")) == 2


def test_other_methods_share_what_they_have_in_common(
    in_folder: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, _ = in_folder
    plain = sequence.model_copy(update={"name": "tiny-finetune", "method": "finetune"})
    result = continual_sequence(sequence=plain)
    assert result.num_reused == 2  # theta_0 and its row
    assert result.manifest.pairs == ()
    compared = sequence.model_copy(update={"baseline": "tiny-finetune"})
    against = continual_sequence(sequence=compared)
    assert (against.num_computed, against.num_reused) == (1, NUM_OUTPUTS - 2)


def test_a_file_or_a_sequence_is_needed() -> None:
    with pytest.raises(SettingsError, match="neither file nor sequence is given"):
        continual_sequence()


def test_a_block_that_does_not_exist_is_named(tiny_data: Path) -> None:
    with pytest.raises(SettingsError, match="no remote-file-system block named 'nowhere'"):
        sequence_store(StoreSettings(url="s3://bucket", block="nowhere"))


def test_a_block_gives_endpoint_and_credentials(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
    key, secret, endpoint = (os.environ[name] for name in keys)
    RemoteFileSystem(
        basepath=bucket, settings={"key": key, "secret": secret, "endpoint_url": endpoint}
    ).save("objects", overwrite=True, _sync=True)
    for name in keys:
        monkeypatch.delenv(name)
    sequence_store(StoreSettings(url=f"{bucket}/blocks", block="objects")).check()
