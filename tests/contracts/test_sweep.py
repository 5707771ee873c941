"""Sweeping on every kind of store, while somebody works there."""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.manifests import ModelManifest
from tasks.store import leases, local_files
from tasks.store.address import open_store
from tasks.store.leases import in_use
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import find_output, plan_output, read_verified, run_output
from tasks.store.sweep import find_unreferenced, sweep


def asked(seed: int) -> ModelManifest:
    return plan_output(
        ModelManifest, stage="finetune", name="digits", settings={}, inputs={}, seed=seed,
        architecture="a", parent=None, task="digits", num_steps=1,
    )  # fmt: skip


ASKED = asked(1)


def make(folder: Path) -> None:
    (folder / "model").write_bytes(b"weights")


@pytest.fixture
def old(store: ObjectStore) -> ModelManifest:
    """An output that nothing reaches, two seconds old: object storage tells whole seconds."""
    made = run_output(store, ASKED, make).manifest
    time.sleep(2.1)
    return made


def test_a_run_under_way_keeps_what_it_finds_and_makes(
    store: ObjectStore, old: ModelManifest
) -> None:
    with in_use(store):
        time.sleep(2.1)
        assert run_output(store, ASKED, make).reused
        run_output(store, asked(2), make)
        time.sleep(2.1)
        found = find_unreferenced(store, 0)
        assert (found.groups, len(found.runs)) == ((), 1)
        assert found.spared_seconds >= 4
    assert store.list("leases") == []
    assert sweep(store, find_unreferenced(store, 0)) == 6
    assert store.list() == []


def test_a_lost_lease_counts_no_longer_and_goes(
    store: ObjectStore, old: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.replace_bytes("leases/lost/alive", b"")
    store.replace_bytes("leases/lost/began", b"")
    time.sleep(2.1)
    assert len(find_unreferenced(store, 0).runs) == 1
    monkeypatch.setattr(leases, "LOST_SECONDS", 1.0)
    monkeypatch.setattr("tasks.store.sweep.LOST_SECONDS", 1.0)
    found = find_unreferenced(store, 0)
    assert found.runs == frozenset()
    assert "lease of a run that is gone, lost" in [group.what for group in found.groups]
    sweep(store, found)
    assert store.list() == []


def test_a_lease_is_renewed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.2)
    with in_use(store):
        (alive,) = (path for path in store.list("leases") if path.endswith("/alive"))
        first = store.modified(alive) or 0
        deadline = time.monotonic() + 20
        while (store.modified(alive) or 0) <= first:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_run_that_begins_meanwhile_ends_the_sweep(store: ObjectStore, old: ModelManifest) -> None:
    found = find_unreferenced(store, 0)
    with in_use(store), pytest.raises(StoreError, match="give the command again"):
        sweep(store, found)
    assert find_output(store, ModelManifest, "finetune", old.key) == old


@pytest.mark.parametrize("moment", ["before the manifest goes", "after the manifest went"])
def test_a_find_between_the_looks_of_a_sweep_is_seen(
    store: ObjectStore, old: ModelManifest, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finds the output when the sweep has looked and is about to remove it."""
    found, delete, others = find_unreferenced(store, 0), store.delete, []

    def meet(path: str) -> None:
        if path.endswith("/manifest.json") and moment.startswith("after"):
            delete(path)
        if path.endswith("/manifest.json"):
            others.append(run_output(open_store(store.url), ASKED, make))
        if not path.endswith("/manifest.json") or moment.startswith("before"):
            delete(path)

    monkeypatch.setattr(store, "delete", meet)
    assert sweep(store, found) == 0
    assert [other.reused for other in others] == [moment.startswith("before")]
    assert find_output(store, ModelManifest, "finetune", old.key) == old
    assert read_verified(store, old.files[0]) == b"weights"


def test_what_a_run_writes_before_it_holds_its_lease_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep with no grace between each temporary file of a run that begins and its rename."""
    store, other = FolderStore(tmp_path), FolderStore(tmp_path)
    write = local_files.write_flushed
    swept: list[int | None] = []

    def slowly(path: Path, chunks: Iterable[bytes]) -> None:
        write(path, chunks)
        if not swept or swept[-1] is not None:  # not what the sweep itself writes
            swept.append(None)
            time.sleep(0.02)
            swept[-1] = sweep(other, find_unreferenced(other, 0))

    monkeypatch.setattr(local_files, "write_flushed", slowly)
    store.check()
    with in_use(store):
        pass
    assert len(swept) >= 4, "the probes and the two objects of the lease"
    assert set(swept) == {0}
