"""Outputs on every kind of store: one of many makers wins, and what is broken can be healed."""

import re
from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.manifests import ModelManifest
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore
from tasks.store.outputs import find_output, plan_output, read_verified, run_output
from tests.contracts.swarm import NUM_PROCESSES, NUM_REPAIRS, commit, swarm

ASKED = plan_output(
    ModelManifest, stage="finetune", name="digits", settings={}, inputs={},
    architecture="a", parent=None, task="digits", num_steps=1,
)  # fmt: skip


def make(folder: Path) -> None:
    (folder / "model").write_bytes(b"weights")


def test_of_eight_processes_that_repair_an_output_one_wins(store: ObjectStore) -> None:
    """Half of the manifests are torn, half have lost the file that worker 0 stores again."""
    for number in range(NUM_REPAIRS):
        broken = commit(store, 0, number)
        if number % 2:
            store.delete(broken.files[0].path)
        else:
            store.replace_bytes(f"{broken.directory}/manifest.json", b"{")
    swarm(store.url, "repair")
    for number in range(NUM_REPAIRS):
        kept = {store.read_bytes(f"kept/{number}/{w}").decode() for w in range(NUM_PROCESSES)}
        standing = find_output(store, ModelManifest, "finetune", commit(store, 0, number).key)
        assert standing is not None
        assert kept == {standing.digest}
        assert read_verified(store, standing.files[0]).startswith(b"made by ")


@pytest.mark.parametrize("others", [(), (2,)], ids=["alone", "met"])
def test_who_repairs_slowly_adopts_what_was_made_whole_meanwhile(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, others: tuple[int, ...]
) -> None:
    """Worker 1 looks before 0 commits, byte for byte the same, and voids what 0 has returned.

    It puts that back itself or, where others meet the void before it does, they do.
    """
    broken = commit(store, 0, 0)
    store.delete(broken.files[0].path)
    swap, quick = store.compare_and_swap, []

    def slow_swap(path: str, data: bytes, version: str | None) -> bool:
        if quick:
            return swap(path, data, version)
        quick.append(commit(open_store(store.url), 0, 0))
        swapped = swap(path, data, version)
        assert swapped, "the manifest is the one that was looked at"
        quick.extend(commit(open_store(store.url), worker, 0) for worker in others)
        return swapped

    monkeypatch.setattr(store, "compare_and_swap", slow_swap)
    assert {kept.digest for kept in (commit(store, 1, 0), *quick)} == {broken.digest}
    assert find_output(store, ModelManifest, "finetune", broken.key) == broken


def test_an_answer_that_was_lost_is_no_defeat(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, swap = store.put_if_absent, store.compare_and_swap

    def deaf_create(path: str, data: bytes) -> bool:
        return create(path, data) and False

    def deaf_swap(path: str, data: bytes, version: str | None) -> bool:
        return swap(path, data, version) and False

    monkeypatch.setattr(store, "put_if_absent", deaf_create)
    monkeypatch.setattr(store, "compare_and_swap", deaf_swap)
    first = run_output(store, ASKED, make).manifest
    store.replace_bytes(f"{first.directory}/manifest.json", b"{")
    assert run_output(store, ASKED, make).manifest == first
    assert run_output(store, ASKED, make).reused


def test_who_does_as_told_of_an_altered_file_heals_the_output(store: ObjectStore) -> None:
    manifest = run_output(store, ASKED, make).manifest
    store.replace_bytes(manifest.files[0].path, b"weighty")
    with pytest.raises(StoreError, match="was altered") as told:
        read_verified(store, manifest.files[0])
    named = re.search("delete " + re.escape(f"{store.url}/") + r"(\S+) and run", str(told.value))
    assert named is not None
    store.delete(named[1])
    healed = run_output(store, ASKED, make)
    assert (healed.reused, healed.manifest) == (False, manifest)
    assert read_verified(store, manifest.files[0]) == b"weights"


def test_a_find_is_told_to_the_sweep_whatever_the_time_is_here(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine is not asked: the record is written anew at every find."""
    manifest = run_output(store, ASKED, make).manifest
    record, written = f"{manifest.directory}/run.json", []
    replace = store.replace_bytes

    def noted(path: str, data: bytes) -> None:
        written.append((path, data))
        replace(path, data)

    monkeypatch.setattr(store, "replace_bytes", noted)
    monkeypatch.setattr("time.time", lambda: pytest.fail("the local clock was asked"))
    assert run_output(store, ASKED, make).reused
    assert written == [(record, store.read_bytes(record))]
    store.delete(record)
    assert run_output(store, ASKED, make).reused
    assert store.exists(record), "an output whose record was lost is protected as well"


def test_an_output_that_goes_while_it_is_found_is_made_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = run_output(store, ASKED, make).manifest
    replace = store.replace_bytes

    def swept(path: str, data: bytes) -> None:
        store.delete(f"{manifest.directory}/manifest.json")
        replace(path, data)

    monkeypatch.setattr(store, "replace_bytes", swept)
    assert not run_output(store, ASKED, make).reused
