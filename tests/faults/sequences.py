"""The smallest whole sequence, an undisturbed run of it, and what a store must look like after."""

from dataclasses import dataclass
from pathlib import Path

from tasks.manifests import sha256_hex
from tasks.sequence import SequenceSettings, StoreSettings
from tasks.store.heads import history_of
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.verify import verify_store
from tests.worlds import tiny_sequence


@dataclass(frozen=True)
class Undisturbed:
    """A sequence that ran in a folder without any fault, and its manifests."""

    sequence: SequenceSettings
    store: FolderStore
    manifests: dict[str, str]


def one_task(data: Path, store: str) -> SequenceSettings:
    """The first task of the tiny sequence: every stage once, rows twice."""
    sequence = tiny_sequence(data, store)
    return sequence.model_copy(update={"tasks": sequence.tasks[:1]})


def moved(sequence: SequenceSettings, url: str) -> SequenceSettings:
    """The same sequence in another store."""
    return sequence.model_copy(update={"store": StoreSettings(url=url)})


def manifests(store: ObjectStore) -> dict[str, str]:
    """Every manifest with its digest."""
    paths = [path for path in store.list("outputs") if path.endswith("/manifest.json")]
    return {path: sha256_hex(store.read_bytes(path)) for path in paths}


def assert_as_undisturbed(store: ObjectStore, expected: dict[str, str]) -> None:
    """Equal manifests, all of it whole, one promotion, and nothing left over."""
    found = manifests(store)
    differs = {path for path in found | expected if found.get(path) != expected.get(path)}
    assert not differs, sorted(differs)
    assert verify_store(store).damages == ()
    assert len(history_of(store, "tiny")) == 1
    assert store.list("heads") == ["heads/tiny/head.json"]
    assert store.list("checkpoints") == []
    directories = {path.rpartition("/")[0] for path in expected}
    for directory in directories:
        assert len({path.split("/")[3] for path in store.list(directory)}) <= 3, directory
