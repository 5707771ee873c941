"""Torn and flipped objects: what the reader says, and that what it says helps."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from flows.continual_sequence import continual_sequence
from gift_core.errors import StoreError
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import commit_output, fetch_output, find_output
from tasks.store.step_checkpoints import StepCheckpoints
from tasks.store.verify import verify_store
from tests.contracts.conftest import store
from tests.faults.sequences import Undisturbed, assert_as_undisturbed, moved
from tests.manifests import RECORD, planned

__all__ = ["store"]
pytestmark = pytest.mark.timeout(400)
MANIFEST_TO_DELETE = re.compile(r"; delete (\S+/manifest\.json) and run again$")


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One bit is another, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def damage(store: ObjectStore, path: str, how: Callable[[bytes], bytes]) -> None:
    store.replace_bytes(path, how(store.read_bytes(path)))


def only(store: ObjectStore, pattern: str) -> str:
    (path,) = [path for path in store.list("outputs") if re.search(pattern, path)]
    return path


def first(store: ObjectStore, pattern: str) -> str:
    return next(path for path in store.list("outputs") if re.search(pattern, path))


def copy(source: ObjectStore, target: ObjectStore) -> None:
    for path in source.list():
        target.replace_bytes(path, source.read_bytes(path))


def test_what_is_damaged_is_named_and_the_named_way_heals(
    store: ObjectStore, undisturbed: Undisturbed
) -> None:
    """A shard and a model with a flipped bit, a torn file, a torn manifest: run until it is well.

    What is torn is noticed by its size and made again unasked. A flipped bit is met by the first
    who reads the file; the sentence is followed to the letter.
    """
    copy(undisturbed.store, store)
    shard, model = first(store, r"synthesize-shard/.*parquet$"), only(store, r"finetune/.*\.safet")
    damage(store, shard, flipped)
    damage(store, model, flipped)
    damage(store, only(store, r"pretrained/.*\.safetensors$"), torn)
    damage(store, first(store, r"evaluate/.*manifest\.json$"), torn)
    store.delete(only(store, r"estimate-fisher/.*/manifest\.json$"))  # so that both are read
    assert {damage.path for damage in verify_store(store).damages} >= {shard, model}
    sequence, named = moved(undisturbed.sequence, store.url), []
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            continual_sequence(sequence=sequence)
        words = str(caught.value)
        assert words.startswith(f"{store.url}/outputs/")
        assert "\n" not in words
        found = MANIFEST_TO_DELETE.search(words)
        assert found, words
        named.append(words.removeprefix(f"{store.url}/").partition(" was altered: ")[0])
        store.delete(found[1].removeprefix(f"{store.url}/"))
    assert sorted(named) == sorted([shard, model])
    continual_sequence(sequence=sequence)
    assert_as_undisturbed(store, undisturbed.manifests)


@pytest.mark.parametrize("how", [torn, flipped])
def test_a_damaged_step_checkpoint_does_not_count(
    store: ObjectStore, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    checkpoints = StepCheckpoints(store, planned())
    (tmp_path / "step-00000002.safetensors").write_bytes(bytes(4096))
    checkpoints.save(2, tmp_path / "step-00000002.safetensors", {"step": [1, 2]})
    place = f"{checkpoints.directory}/step-00000002.safetensors"
    damage(store, place, how)
    again = StepCheckpoints(store, planned())
    assert again.fetch(tmp_path / "resume") is None, "the stage begins anew"
    assert not (tmp_path / "resume").exists()
    (tmp_path / "step-00000002.safetensors").write_bytes(bytes(4096))
    again.save(2, tmp_path / "step-00000002.safetensors", {"step": [1, 2]})
    found = StepCheckpoints(store, planned()).fetch(tmp_path / "resume")
    assert found is not None
    assert found.step == 2


def test_whatever_bit_of_a_manifest_is_flipped_verifying_names_it(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Also where it is a good manifest still: heads and reports name manifests by their digest."""
    store = FolderStore(tmp_path / "store")
    copy(undisturbed.store, store)
    path = only(store, r"finetune/.*/manifest\.json$")
    data = store.read_bytes(path)
    for position in range(20, len(data), len(data) // 20):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        store.replace_bytes(path, changed)
        assert path in {damage.path for damage in verify_store(store).damages}, changed
    store.replace_bytes(path, data)
    assert verify_store(store).damages == ()


@pytest.mark.parametrize("position", range(40, 1000, 97))
def test_a_manifest_that_is_deleted_for_its_damage_is_made_anew(
    tmp_path: Path, position: int
) -> None:
    store, local = FolderStore(tmp_path / "store"), tmp_path / "local"
    local.mkdir()
    (local / "weights").write_bytes(b"w" * 100)
    made = commit_output(store, planned(), local, RECORD)
    where = f"{made.directory}/manifest.json"
    data = store.read_bytes(where)
    position %= len(data)
    store.replace_bytes(where, data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    found = find_output(store, type(made), made.stage, made.key)
    if found is not None:  # a good manifest, but another one: nobody takes it for that which was
        assert found.digest != made.digest
        with suppress(StoreError):
            fetch_output(store, found, tmp_path / "read")
        store.delete(where)
    assert commit_output(store, planned(), local, RECORD) == made
    assert store.read_bytes(where) == data
