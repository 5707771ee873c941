"""Upkeep as flows: what is sound passes, damage fails with one sentence, gc needs to be told."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from flows.upkeep import gc, verify
from gift_core.errors import StoreError
from tasks.sequence import StoreSettings
from tasks.store.objects import FolderStore
from tests.tasks.conftest import made_up_run

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "store")
    made_up_run(store)
    return store


def artifact(key: str) -> str:
    asked: dict[str, Any] = {"artifacts": {"key": {"any_": [key]}}}
    with get_client(sync_client=True) as client:
        (found,) = client.request("POST", "/artifacts/latest/filter", json=asked).json()
    return str(found["data"])


def test_a_sound_store_passes_and_damage_fails_with_its_name(store: FolderStore) -> None:
    settings = StoreSettings(url=store.url)
    assert verify(settings).num_files > 0
    assert "all as they were stored" in artifact("store-verified")
    path = next(path for path in store.list("outputs") if not path.endswith(".json"))
    whole = store.read_bytes(path)
    store.replace_bytes(path, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=f"1 damaged, first {path}: its SHA-256 is"):
        verify(settings)
    assert "its SHA-256 is" in artifact("store-verified")


def test_gc_lists_and_removes_only_when_told(store: FolderStore) -> None:
    settings = StoreSettings(url=store.url)
    before = store.list()
    spared = gc(settings)
    assert (spared.num_listed, spared.num_removed) == (0, 0)
    listed = gc(settings, older_than=0)
    assert listed.num_listed > 0
    assert (listed.num_removed, store.list()) == (0, before)
    assert f"{listed.num_listed} objects" in artifact("store-swept")
    assert gc(settings, delete=True, older_than=0).num_removed == listed.num_listed
    assert gc(settings, older_than=0).num_listed == 0
