"""One suite for every store: what stages may rely on holds on a folder and on object storage."""

import pickle
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from deployments.seaweed import Endpoint
from gift_core.errors import SettingsError, StoreError
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore
from tasks.store.s3 import PART_BYTES
from tests.contracts.swarm import NUM_PROCESSES, NUM_TIMES, swarm


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


def test_a_part_is_read_without_the_rest(store: ObjectStore) -> None:
    store.put_if_absent("x", bytes(range(100)))
    assert store.read_range("x", 10, 5) == bytes(range(10, 15))
    assert store.read_range("x", 95, 50) == bytes(range(95, 100))
    with pytest.raises(StoreError, match="y does not exist"):
        store.read_range("y", 0, 5)


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


RACER = """
import sys
from tasks.store.address import open_store

store = open_store(sys.argv[1])
store.size("warm-up")
print("ready", flush=True)
sys.stdin.readline()
print(sum(store.put_if_absent(f"race/{n}", sys.argv[2].encode()) for n in range(20)))
"""


def test_one_of_two_racing_processes_wins(store: ObjectStore) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, store.url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    bodies = [store.read_bytes(f"race/{number}") for number in range(20)]
    assert won == [bodies.count(b"one"), bodies.count(b"two")]
    assert sum(won) == 20


def test_large_files_go_up_and_down_whole(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    num_bytes = 2 * PART_BYTES + 1_000_000  # three parts on object storage
    source.write_bytes(secrets.token_bytes(num_bytes))
    store.put_file("large", source)
    assert store.size("large") == num_bytes
    store.fetch("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_file_of_another_size_is_replaced_and_one_of_the_same_left(
    store: ObjectStore, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"whole")
    store.replace_bytes("torn", b"who")
    store.put_file("torn", source)
    assert store.read_bytes("torn") == b"whole"
    store.replace_bytes("same-size", b"other")
    store.put_file("same-size", source)
    assert store.read_bytes("same-size") == b"other"


def test_what_another_process_does_is_seen_at_once(store: ObjectStore) -> None:
    """Two openings share nothing; a cache of listings would hide each other's objects."""
    other = open_store(store.url)
    assert other.list() == []
    store.put_if_absent("a", b"1")
    assert (other.list(), other.size("a")) == (["a"], 1)
    store.replace_bytes("a", b"22")
    assert (other.size("a"), other.read_bytes("a")) == (2, b"22")
    store.delete("a")
    store.delete("a")
    assert (other.list(), other.exists("a")) == ([], False)


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
    started = time.monotonic()
    with pytest.raises(StoreError, match="check that the endpoint is up"):
        store.check()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("act", ["check", "read", "write"])
def test_a_silent_server_is_given_up(act: str) -> None:
    """Without care a PUT waits for `100 Continue` without end, whatever the time limits are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limits = {"read_timeout": 1, "retries": {"total_max_attempts": 1}}
        store = open_store(
            "s3://bucket",
            {
                "endpoint_url": f"http://127.0.0.1:{listener.getsockname()[1]}",
                "key": "k",
                "secret": "s",
                "config_kwargs": limits,
            },
        )
        acts = {
            "check": store.check,
            "read": lambda: store.read_bytes("x"),
            "write": lambda: store.put_if_absent("x", b"body"),
        }
        started = time.monotonic()
        with pytest.raises(StoreError, match="check that the endpoint is up"):
            acts[act]()
        assert time.monotonic() - started < 30


def test_keys_are_not_shown() -> None:
    store = open_store("s3://bucket", {"key": "k", "secret": "hidden"})
    assert "hidden" not in f"{store!r} {store.url}"


def test_options_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown options"):
        open_store("s3://bucket", {"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(SettingsError, match="a folder takes no options"):
        open_store(str(tmp_path), {"key": "k"})


def test_a_swap_needs_the_version_that_was_read(store: ObjectStore) -> None:
    assert store.read_versioned("head") is None
    assert not store.compare_and_swap("head", b"1", "0" * 32)
    assert store.compare_and_swap("head", b"1", None)
    assert not store.compare_and_swap("head", b"2", None)
    first = store.read_versioned("head")
    assert first is not None
    assert first[0] == b"1"
    assert store.compare_and_swap("head", b"2", first[1])
    assert not store.compare_and_swap("head", b"3", first[1])
    second = store.read_versioned("head")
    assert second is not None
    assert second[0] == b"2"
    store.delete("head")
    assert not store.compare_and_swap("head", b"3", second[1])
    assert store.list() == []


def test_eight_processes_lose_no_update(store: ObjectStore) -> None:
    swarm(store.url, "count")
    assert int(store.read_bytes("counter")) == NUM_PROCESSES * NUM_TIMES


def test_the_time_of_writing_is_told(store: ObjectStore) -> None:
    assert store.modified("x") is None
    store.put_if_absent("x", b"1")
    first = store.modified("x")
    assert first is not None
    assert abs(first - time.time()) < 60
    time.sleep(1.1)  # object storage tells whole seconds
    store.replace_bytes("x", b"1")
    assert (store.modified("x") or 0) > first


KILLED = """
import os, sys
from pathlib import Path
from tasks.store import s3
from tasks.store.address import open_store

store, source = open_store(sys.argv[1]), Path(sys.argv[2])
if sys.argv[1].startswith("s3:"):
    call = s3.S3FileSystem._call_s3
    async def die(self, method, *args, **kwargs):
        if method == "complete_multipart_upload":
            os._exit(9)
        return await call(self, method, *args, **kwargs)
    s3.S3FileSystem._call_s3 = die
else:
    Path.replace = lambda *_: os._exit(9)
store.upload("outputs/finetune/large", source)
"""


def test_what_a_killed_writer_leaves_is_listed_and_removed(
    store: ObjectStore, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(2 * PART_BYTES + 1_000_000))  # three parts on object storage
    store.compare_and_swap("head", b"1", None)  # leaves a lock file, which is no leftover
    beside = open_store(f"{store.url}-beside")
    for url in (store.url, beside.url):
        arguments = [sys.executable, "-c", KILLED, url, str(source)]
        assert subprocess.run(arguments, timeout=60).returncode == 9
    assert store.list() == ["head"]
    (left,) = store.leftovers()
    assert left.name.startswith("outputs/finetune/")
    assert left.num_bytes == source.stat().st_size
    assert abs(left.written - time.time()) < 60
    for _ in range(2):
        store.discard(left)
    assert list(store.leftovers()) == []
    assert len(beside.leftovers()) == 1, "a prefix does not reach its neighbour"
    assert store.compare_and_swap("head", b"2", (store.read_versioned("head") or (b"", ""))[1])
    beside.discard(beside.leftovers()[0])


class Careless(BaseHTTPRequestHandler):
    """Object storage that knows one condition and ignores the other."""

    honoured = ""
    objects: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        there = self.path in self.objects
        if self.honoured == "If-None-Match" and "If-None-Match" in self.headers and there:
            return self.answer(412)
        if self.headers.get("If-Match", '"1"') != '"1"':
            return self.answer(412)
        self.objects[self.path] = body
        return self.answer(200)

    def do_GET(self) -> None:
        listing = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
        self.answer(200, listing if "list-type" in self.path else b"a")

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self.answer(204)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.mark.parametrize(
    ("honoured", "sentence"),
    [("", "only when it is absent"), ("If-None-Match", "only as it was read.*honours If-Match")],
)
def test_a_server_that_ignores_a_condition_is_refused(honoured: str, sentence: str) -> None:
    handler = type("Handler", (Careless,), {"honoured": honoured, "objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        store = open_store(
            "s3://bucket",
            {"endpoint_url": f"http://127.0.0.1:{server.server_port}", "key": "k", "secret": "s"},
        )
        with pytest.raises(StoreError, match=sentence):
            store.check()
        assert handler.objects == {}
        server.shutdown()
