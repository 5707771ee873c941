"""One suite for every store: what stages may rely on holds on a folder and on object storage."""

import pickle
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.seaweed import Endpoint
from gift_core.errors import SettingsError, StoreError
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    endpoint: Endpoint = request.getfixturevalue("endpoint")
    return open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")


def test_what_is_put_is_read(store: ObjectStore, tmp_path: Path) -> None:
    store.check()
    assert store.put_if_absent("a/b.json", b"one")
    assert store.read_bytes("a/b.json") == b"one"
    assert (store.exists("a/b.json"), store.size("a/b.json")) == (True, 3)
    assert (store.exists("a/c.json"), store.size("a/c.json")) == (False, None)
    store.fetch("a/b.json", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"one"


def test_the_first_of_two_stays(store: ObjectStore) -> None:
    assert store.put_if_absent("x", b"first")
    assert not store.put_if_absent("x", b"second")
    assert store.read_bytes("x") == b"first"
    store.replace_bytes("x", b"third")
    assert store.read_bytes("x") == b"third"


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.put_if_absent("empty", b"")
    assert not store.put_if_absent("empty", b"full")
    assert store.read_bytes("empty") == b""


def test_one_of_many_racing_writers_wins(store: ObjectStore) -> None:
    store.check()
    for number in range(5):
        path, bodies = f"race/{number}", [f"writer {writer}".encode() for writer in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(store.put_if_absent, [path] * 8, bodies))
        assert sum(won) == 1
        assert store.read_bytes(path) == bodies[won.index(True)]


def test_large_files_go_up_and_down_whole(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(secrets.token_bytes(20_000_000))
    store.put_file("large", source)
    assert store.size("large") == 20_000_000
    store.fetch("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_listing_is_sorted_and_below_a_folder(store: ObjectStore) -> None:
    for path in ("b/2", "a/1", "b/1/x", "bb/3"):
        store.put_if_absent(path, b"x")
    assert store.list() == ["a/1", "b/1/x", "b/2", "bb/3"]
    assert store.list("b") == ["b/1/x", "b/2"]
    assert store.list("none") == []
    store.delete("b/2")
    assert store.list("b") == ["b/1/x"]


def test_check_leaves_nothing(store: ObjectStore) -> None:
    store.check()
    assert store.list() == []


def test_what_is_missing_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no/where"):
        store.read_bytes("no/where")
    with pytest.raises(StoreError, match="no/where"):
        store.fetch("no/where", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../up", "a/../b", "a//b", "", "a\\b", "a/./b", "*"]
)
def test_paths_that_leave_the_store_are_refused(store: ObjectStore, path: str) -> None:
    with pytest.raises(StoreError, match="not a path of a store"):
        store.put_if_absent(path, b"x")
    with pytest.raises(StoreError, match="not a path of a store"):
        store.read_bytes(path)


def test_a_store_travels_to_another_process(store: ObjectStore) -> None:
    store.put_if_absent("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"1"  # noqa: S301 - our own


def test_addresses_that_are_no_store(tmp_path: Path) -> None:
    for address in ("ftp://host/x", "s3://", "gs://bucket"):
        with pytest.raises(SettingsError):
            open_store(address)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "file")).check()


def test_a_missing_bucket_is_refused_not_made(endpoint: Endpoint) -> None:
    with pytest.raises(StoreError, match="no bucket nowhere"):
        open_store("s3://nowhere/prefix").check()


def test_a_wrong_key_is_refused(endpoint: Endpoint) -> None:
    store = open_store(f"s3://{endpoint.bucket}", {"key": endpoint.key, "secret": "wrong"})
    with pytest.raises(StoreError, match="access refused"):
        store.check()


def test_nobody_there_is_said_within_seconds(endpoint: Endpoint) -> None:
    store = open_store("s3://bucket", {"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StoreError, match="check that the endpoint is up"):
        store.check()
