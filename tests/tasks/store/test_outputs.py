"""Outputs: committed whole, skipped only when they stand, adopted when another was first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.manifests import (
    ModelManifest,
    canonical_json,
    output_key,
    sha256_hex,
)
from tasks.store.objects import FolderStore
from tasks.store.outputs import (
    commit_output,
    fetch_output,
    find_output,
    library_versions,
    read_run_record,
    read_verified,
    run_output,
)
from tests.manifests import RECORD, planned


def writer(content: bytes = b"weights") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "model").write_bytes(content)
        (folder / "history.json").write_bytes(b"{}")

    return make


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_manifest_bytes_are_golden(store: FolderStore) -> None:
    """Literal bytes: a change here is a change of the format and needs a new schema version."""
    manifest = run_output(store, planned(), writer()).manifest
    key = planned().key
    place = f"outputs/finetune/{key}"
    text = store.read_bytes(f"{place}/manifest.json").decode()
    content = manifest.files[0].path.split("/")[3]
    history, model = sha256_hex(b"{}"), sha256_hex(b"weights")
    assert text == (
        '{"architecture":"tiny","files":['
        f'{{"num_bytes":2,"path":"{place}/{content}/history.json","sha256":"{history}"}},'
        f'{{"num_bytes":7,"path":"{place}/{content}/sub/model","sha256":"{model}"}}],'
        f'"inputs":{{"parent":"p"}},"key":"{key}","name":"digits","num_steps":2,"parent":null,'
        '"schema_version":1,"seed":3,"settings":{"steps":2},"stage":"finetune","task":"digits",'
        '"versions":{"torch":"2"}}\n'
    )
    assert manifest.digest == sha256_hex(text.rstrip("\n").encode())


def test_key_follows_everything_that_decides_the_output() -> None:
    base = ("finetune", 1, {"parent": "p"}, {"steps": 2}, 3)
    changes = [
        ("evaluate", *base[1:]),
        (*base[:1], 2, *base[2:]),
        (*base[:2], {"parent": "q"}, *base[3:]),
        (*base[:3], {"steps": 3}, 3),
        (*base[:4], 4),
    ]
    keys = {output_key(*arguments) for arguments in (base, *changes)}
    assert len(keys) == 6


def test_the_second_time_nothing_is_made(store: FolderStore) -> None:
    first = run_output(store, planned(), writer())
    again = run_output(store, planned(), lambda _: pytest.fail("made again"))
    assert (first.reused, again.reused) == (False, True)
    assert again.manifest == first.manifest


def test_files_come_back_in_their_layout(store: FolderStore, tmp_path: Path) -> None:
    manifest = run_output(store, planned(), writer()).manifest
    fetch_output(store, manifest, tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "model").read_bytes() == b"weights"
    assert read_verified(store, manifest.file("history.json")) == b"{}"


def test_run_record_stays_outside_the_digest(store: FolderStore, tmp_path: Path) -> None:
    manifest = run_output(store, planned(), writer(), device="cuda:0").manifest
    record = read_run_record(store, manifest)
    assert record is not None
    assert record.device == "cuda:0"
    elsewhere = FolderStore(tmp_path / "elsewhere")
    assert run_output(elsewhere, planned(), writer()).manifest.digest == manifest.digest


@pytest.mark.parametrize("harm", ["delete", "truncate", "manifest", "place", "version"])
def test_a_broken_output_does_not_count(
    store: FolderStore, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = run_output(store, planned(), writer()).manifest
    path = manifest.files[1].path
    if harm == "delete":
        store.delete(path)
    elif harm == "truncate":
        store.replace_bytes(path, b"w")
    else:
        text = store.read_bytes(f"{manifest.directory}/manifest.json")
        texts = {
            "manifest": b'{"stage":"finetune"}',
            "place": text.replace(path.encode(), b"../../etc/passwd"),
            "version": text.replace(b'"schema_version":1', b'"schema_version":2'),
        }
        store.replace_bytes(f"{manifest.directory}/manifest.json", texts[harm])
    again = run_output(store, planned(), writer())
    assert not again.reused
    assert again.manifest == manifest
    assert read_verified(store, manifest.files[1]) == b"weights"
    assert "the work is done again" in caplog.text


def test_an_altered_file_is_put_again_when_the_output_is_redone(store: FolderStore) -> None:
    """Same name, same size: only the digest tells that the store's copy is not the one made."""
    manifest = run_output(store, planned(), writer()).manifest
    store.replace_bytes(manifest.files[1].path, b"weighty")
    store.delete(f"{manifest.directory}/manifest.json")
    assert run_output(store, planned(), writer()).manifest == manifest
    assert read_verified(store, manifest.files[1]) == b"weights"


def test_objects_of_other_outputs_stay_in_front(store: FolderStore, tmp_path: Path) -> None:
    shards = [run_output(store, planned(seed), writer()).manifest.files[1] for seed in (1, 2)]
    joined = planned().model_copy(update={"files": tuple(shards)})
    manifest = run_output(store, joined, lambda _: None).manifest
    assert manifest.files == tuple(shards)
    with pytest.raises(StoreError, match="equal names"):
        fetch_output(store, manifest, tmp_path)


def test_a_failing_stage_leaves_nothing_visible(store: FolderStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        run_output(store, planned(), fail)
    assert store.list() == []


def test_who_commits_second_adopts_the_first(store: FolderStore, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, content in zip(folders, (b"weights", b"others!"), strict=True):
        folder.mkdir()
        writer(content)(folder)
    first = commit_output(store, planned(), folders[0], RECORD)
    second = commit_output(store, planned(), folders[1], RECORD)
    assert second == first
    assert read_verified(store, second.file("model")) == b"weights"


def test_a_flipped_byte_is_found_when_read(store: FolderStore, tmp_path: Path) -> None:
    manifest = run_output(store, planned(), writer()).manifest
    store.replace_bytes(manifest.files[1].path, b"weighty")
    assert find_output(store, ModelManifest, "finetune", manifest.key) == manifest
    with pytest.raises(StoreError, match=manifest.files[1].path):
        read_verified(store, manifest.files[1])
    with pytest.raises(StoreError, match=manifest.files[1].path):
        fetch_output(store, manifest, tmp_path / "back")
    assert not (tmp_path / "back" / "sub" / "model").exists()


def test_make_may_complete_the_manifest_but_not_change_its_key(store: FolderStore) -> None:
    def complete(folder: Path) -> ModelManifest:
        return planned().model_copy(update={"num_steps": 9})

    assert run_output(store, planned(), complete).manifest.num_steps == 9
    with pytest.raises(ValueError, match="another key"):
        run_output(store, planned(seed=4), lambda _: planned(seed=5))


def test_versions_name_the_libraries_that_decide_bytes() -> None:
    versions = library_versions()
    assert versions["torch"] != "not installed"
    assert set(versions) >= {"torch", "open_clip_torch", "diffusers", "pyarrow"}


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "ä"]}) == b'{"a":[1.5,"\\u00e4"],"b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
