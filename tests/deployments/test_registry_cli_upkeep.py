"""`gift verify` and `gift gc`, on a folder and on object storage, with what a run leaves."""

import os
import secrets
import shutil
import time
from pathlib import Path

import pytest

from deployments.seaweed import Endpoint
from tasks.manifests import ModelManifest
from tasks.store import sweep
from tasks.store.address import open_store
from tasks.store.heads import history_of
from tasks.store.inventory import take_inventory
from tasks.store.leases import in_use
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import plan_output
from tasks.store.s3 import S3Store
from tasks.store.step_checkpoints import StepCheckpoints
from tests.deployments.conftest import Gift
from tests.deployments.made_up_stores import aged, reported
from tests.tasks.conftest import MadeUpRun, made_up_run


def test_a_whole_store_verifies(gift: Gift, store: ObjectStore) -> None:
    reported(store)
    code, out, _ = gift("verify", "--store", store.url)
    assert (code, out.strip().endswith("all as they were stored")) == (0, True)
    assert "15 outputs, " in out


def harm(store: ObjectStore, run: MadeUpRun, damage: str) -> str:
    """Damage one object of a run; where `gift verify` must say so."""
    weights = run.models[1].file("open_clip_model.safetensors")
    manifest = f"{run.scores[1].directory}/manifest.json"
    path, text = manifest, store.read_bytes(manifest).decode()
    match damage:
        case "flipped":
            path, data = weights.path, bytearray(store.read_bytes(weights.path))
            data[1_000_000] ^= 1
            store.replace_bytes(path, bytes(data))
        case "truncated":
            path = weights.path
            store.replace_bytes(path, store.read_bytes(path)[:-1])
        case "missing shard":
            path = run.pairs[0].files[1].path
            store.delete(path)
        case "missing manifest":
            path = f"{run.models[1].directory}/manifest.json"
            store.delete(path)
        case "edited number":
            store.replace_bytes(
                path, text.replace('"num_correct":384', '"num_correct":385').encode()
            )
        case "edited seed":
            store.replace_bytes(path, text.replace('"seed":3', '"seed":4').encode())
        case "torn manifest":
            store.replace_bytes(path, text[:100].encode())
        case "edited entry":
            entry = f"heads/little/entries/{history_of(store, 'little')[1].digest}.json"
            store.replace_bytes(entry, store.read_bytes(entry).replace(b"learnt", b"learned"))
            path = "heads/little"
        case "edited view":
            path = "reports/little/sequence.json"
            view = store.read_bytes(path)
            store.replace_bytes(path, view.replace(b'"method":"gift"', b'"method":"l2"'))
            path = "outputs/report/"
    return path


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("flipped", "its SHA-256 is"),
        ("truncated", "it has 1999999 bytes, not 2000000"),
        ("missing shard", "it is missing"),
        ("missing manifest", "it is missing, but entry 2 of little names it"),
        ("edited number", "it was edited: its digest is"),
        ("edited seed", "its key does not follow"),
        ("torn manifest", "cannot be read as a manifest"),
        ("edited entry", "was altered"),
        ("edited view", "it was edited"),
    ],
)
def test_verify_finds(gift: Gift, folder: FolderStore, damage: str, words: str) -> None:
    place = harm(folder, reported(folder), damage)
    code, out, _ = gift("verify", "--store", folder.url)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith(place) and words in line], out
    assert "delete its manifest.json and run the sequence again" in out


def test_verify_finds_damage_on_object_storage(gift: Gift, endpoint: Endpoint) -> None:
    """One damage after the other, each mended before the next."""
    store = open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")
    run = reported(store)
    for damage, words in (
        ("flipped", "its SHA-256 is"),
        ("truncated", "it has 1999999 bytes, not 2000000"),
        ("missing shard", "it is missing"),
        ("edited number", "it was edited: its digest is"),
        ("edited seed", "its key does not follow"),
        ("torn manifest", "cannot be read as a manifest"),
    ):
        before = {path: store.read_bytes(path) for path in harmed(run)}
        place = harm(store, run, damage)
        code, out, _ = gift("verify", "--store", store.url)
        assert code == 1
        assert [line for line in out.splitlines() if line.startswith(place) and words in line], out
        store.replace_bytes(place, before[place])
    assert gift("verify", "--store", store.url)[0] == 0


def harmed(run: MadeUpRun) -> list[str]:
    """The objects that `harm` damages in the ways tried on object storage."""
    return [
        run.models[1].file("open_clip_model.safetensors").path,
        run.pairs[0].files[1].path,
        f"{run.scores[1].directory}/manifest.json",
    ]


def test_gc_spares_what_is_in_use_and_removes_the_rest(gift: Gift, folder: FolderStore) -> None:
    reported(folder)
    reported(folder, "other", method="finetune")
    aged(folder)
    before = folder.list()
    assert "nothing to remove" in gift("gc", "--store", folder.url)[1]
    folder.delete("reports/other/sequence.json")
    out = gift("gc", "--store", folder.url)[1]
    assert [line.split("/")[0] for line in out.splitlines()[:-1]] == ["output report"], "heads"
    shutil.rmtree(folder.root / "heads" / "other")
    code, out, _ = gift("gc", "--store", folder.url)
    assert (code, "nothing was removed, give --delete" in out) == (0, True)
    assert len(folder.list()) == len(before) - 3, "a dry run removes nothing"
    code, out, _ = gift("gc", "--delete", "--store", folder.url)
    assert code == 0
    left = folder.list()
    assert gift("verify", "--store", folder.url)[0] == 0
    assert all(path.startswith(("outputs/", "heads/little", "reports/")) for path in left)
    kept = take_inventory(folder)
    assert len(kept.outputs) == 15
    assert "nothing to remove" in gift("gc", "--store", folder.url)[1]


def test_gc_spares_what_young_outputs_and_checkpoints_were_made_from(
    gift: Gift,
    folder: FolderStore,
    tmp_path: Path,
) -> None:
    run = made_up_run(folder, "little", ("digits", "photos"))
    aged(folder)
    young = folder.root / run.scores[1].directory / "run.json"
    os.utime(young)
    running = plan_output(
        ModelManifest, stage="finetune", name="next", settings={}, architecture="a", parent=None,
        task="next", num_steps=1, inputs={"parent": run.models[2].digest},
    )  # fmt: skip
    file = tmp_path / "step-00000001.safetensors"
    file.write_bytes(b"1")
    StepCheckpoints(folder, running).save(1, file, {"step": [1]})
    lost = "outputs/finetune/" + "0" * 64 + "/half/model"
    folder.put_if_absent(lost, b"x")
    assert gift("gc", "--delete", "--store", folder.url)[0] == 0
    outputs = set(take_inventory(folder).outputs)
    needed = (run.scores[1], *run.models, *run.pairs)
    assert {f"{each.stage}/{each.key}" for each in needed} <= outputs
    assert f"evaluate/{run.scores[2].key}" not in outputs
    assert f"estimate-fisher/{run.fishers[1].key}" not in outputs
    assert folder.exists(lost), "somebody may be writing it"
    aged(folder)
    assert gift("gc", "--delete", "--store", folder.url)[0] == 0
    assert folder.list() == []


def test_gc_removes_nothing_where_it_cannot_tell(gift: Gift, folder: FolderStore) -> None:
    run = reported(folder)
    aged(folder)
    folder.replace_bytes(f"{run.models[1].directory}/manifest.json", b"{")
    code, _, error = gift("gc", "--delete", "--store", folder.url)
    assert (code, "nothing is removed" in error) == (2, True)


def test_gc_removes_an_entry_that_no_head_names(gift: Gift, folder: FolderStore) -> None:
    reported(folder)
    folder.put_if_absent(f"heads/little/entries/{'0' * 64}.json", b"{}")
    assert "nothing to remove" in gift("gc", "--store", folder.url)[1]
    aged(folder)
    assert "entry that no history names: 1 objects" in gift("gc", "--store", folder.url)[1]


def test_what_a_run_finds_is_young_again(folder: FolderStore) -> None:
    run = made_up_run(folder, "little", ("digits",), "finetune")
    aged(folder)
    record = f"{run.models[1].directory}/run.json"
    before = folder.read_bytes(record)
    made_up_run(folder, "little", ("digits",), "finetune")
    assert time.time() - (folder.modified(record) or 0) < 60
    assert folder.read_bytes(record) == before


def test_gc_on_object_storage_goes_by_its_clock(gift: Gift, endpoint: Endpoint) -> None:
    store = open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")
    made_up_run(store, "little", ("digits",), "finetune")
    assert "nothing to remove" in gift("gc", "--older-than", "1h", "--store", store.url)[1]
    time.sleep(2.1)
    code, out, _ = gift("gc", "--delete", "--older-than", "1s", "--store", store.url)
    assert (code, "objects removed" in out) == (0, True)
    assert store.list() == []


def test_gc_names_and_removes_what_killed_writers_left(
    gift: Gift, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On object storage an upload that nobody completed or aborted; its parts cost money."""
    reported(store)
    before = store.list()
    if isinstance(store, FolderStore):
        left = store.root / "outputs" / ".tmp-0123456789abcdef"
        left.write_bytes(b"half")
    else:
        assert isinstance(store, S3Store)
        store._files().call_s3(
            "create_multipart_upload", Bucket=store.bucket, Key=f"{store.prefix}/outputs/large"
        )
    time.sleep(2.1)
    young = gift("gc", "--delete", "--older-than", "1h", "--store", store.url)
    assert "nothing to remove" in young[1]
    assert "nothing to remove" in gift("gc", "--older-than", "1s", "--store", store.url)[1]
    monkeypatch.setattr(sweep, "WRITING_SECONDS", 1.0)
    out = gift("gc", "--older-than", "1s", "--store", store.url)[1]
    assert "left by a killed writer, outputs/" in out
    assert "1 objects, 0.0 MB; nothing was removed" in out
    assert len(store.leftovers()) == 1
    out = gift("gc", "--delete", "--older-than", "1s", "--store", store.url)[1]
    assert "1 of 1 objects removed" in out
    assert list(store.leftovers()) == []
    assert store.list() == before


def test_gc_says_that_a_run_is_under_way(gift: Gift, folder: FolderStore) -> None:
    made_up_run(folder, "little", ("digits",), "finetune")
    aged(folder)
    before = folder.list()
    with in_use(folder):
        made_up_run(folder, "little", ("digits",), "finetune")
        time.sleep(0.05)
        out = gift("gc", "--delete", "--older-than", "0s", "--store", folder.url)[1]
    assert out.splitlines()[0].startswith("runs under way: 1; what they have made or found")
    assert (out.splitlines()[1], folder.list()) == ("nothing to remove", before)
