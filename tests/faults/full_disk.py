"""A disk that is really full: small file systems in memory for the store, scratch and cache.

They are mounted, so test_full_disk.py runs this file where that concerns nobody else.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.continual_sequence import continual_sequence
from gift_core.errors import StoreError
from tasks.store.local_files import TEMPORARY_PREFIX
from tasks.store.objects import FolderStore
from tasks.store.verify import verify_store
from tests.faults.sequences import Undisturbed, assert_as_undisturbed, moved

FULL = r"cannot write( to)? {}.*: No space left on device; make room, then run again$"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)


pytestmark = pytest.mark.timeout(400)


def test_a_full_store_is_one_sentence_and_with_room_the_run_goes_on(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Room for theta_0 and the pairs, not for what is learnt."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        store = FolderStore(disk / "store")
        sequence = moved(undisturbed.sequence, store.url)
        with pytest.raises(StoreError, match=FULL.format(store.url)) as caught:
            continual_sequence(sequence=sequence)
        assert "\n" not in str(caught.value)
        assert verify_store(store).damages == (), "what is visible is whole"
        hidden = [path.name for path in store.root.rglob(f"{TEMPORARY_PREFIX}*")]
        assert hidden == [], "a torn file would fill the disk for nothing"
        enlarge(disk)
        result = continual_sequence(sequence=sequence)
        assert result.num_reused >= 2
        assert_as_undisturbed(store, undisturbed.manifests)


def test_full_scratch_is_one_sentence_naming_the_folder(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(StoreError, match=FULL.format(disk)):
            continual_sequence(sequence=moved(undisturbed.sequence, store.url))
        assert list(disk.iterdir()) == [], "scratch is cleared"
    assert store.list("outputs") == []


def test_a_full_cache_is_one_sentence_naming_the_folder(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """What was computed until then stands."""
    store = FolderStore(tmp_path / "store")
    for path in undisturbed.store.list("outputs"):
        if not path.startswith(("outputs/finetune", "outputs/estimate")):
            store.replace_bytes(path, undisturbed.store.read_bytes(path))
    with small_disk(tmp_path / "disk", "8k") as disk:
        execution = undisturbed.sequence.execution.model_copy(update={"cache": str(disk)})
        sequence = moved(undisturbed.sequence, store.url).model_copy(
            update={"execution": execution}
        )
        words = rf"cannot keep preprocessed images in {disk}: No space left .*make room"
        with pytest.raises(StoreError, match=words):
            continual_sequence(sequence=sequence)
        assert list(disk.iterdir()) == []
    found = verify_store(store)
    assert found.num_outputs == len(undisturbed.manifests) - 2
