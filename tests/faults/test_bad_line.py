"""Slow, failing, torn and lost answers of object storage, between s3fs and a real server."""

import time
from pathlib import Path

import pytest

from gift_core.errors import StoreError
from tasks.store import registry
from tasks.store.heads import history_of
from tasks.store.objects import CHUNK_BYTES
from tasks.store.outputs import commit_output, find_output
from tasks.store.s3 import S3Store
from tests.contracts.swarm import candidate
from tests.faults.proxy import Kind, Proxy
from tests.manifests import RECORD, planned


def test_slow_answers_are_waited_for(far: S3Store, proxy: Proxy) -> None:
    proxy.add("delay", "PUT", "slow", seconds=2.0)
    proxy.add("delay", "GET", "slow", seconds=2.0)
    assert far.put_if_absent("slow", b"x")
    assert far.read_bytes("slow") == b"x"


@pytest.mark.parametrize("status", [500, 503])
def test_some_failing_answers_are_survived(far: S3Store, proxy: Proxy, status: int) -> None:
    faults = [proxy.add("refuse", method, "a", times=2, status=status) for method in ("PUT", "GET")]
    assert far.put_if_absent("a", b"x")
    assert far.read_bytes("a") == b"x"
    assert [fault.num_hit for fault in faults] == [2, 2]


@pytest.mark.parametrize(("kind", "status"), [("refuse", 500), ("refuse", 503), ("silence", 0)])
@pytest.mark.parametrize("act", ["PUT", "GET", "HEAD"])
def test_failing_without_end_is_one_sentence(
    hasty: S3Store, proxy: Proxy, kind: Kind, status: int, act: str
) -> None:
    """In bounded time, naming the object; nothing half visible."""
    fault = proxy.add(kind, act, "gone", times=1000, status=status)
    acts = {
        "PUT": lambda: hasty.put_if_absent("gone", b"x"),
        "GET": lambda: hasty.read_versioned("gone"),
        "HEAD": lambda: hasty.size("gone"),
    }
    started = time.monotonic()
    with pytest.raises(StoreError, match="check that the endpoint is up") as caught:
        acts[act]()
    assert time.monotonic() - started < 10
    assert f"{hasty.url}/gone" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert fault.num_hit == 2
    assert hasty.list() == []


@pytest.mark.parametrize("way", ["read_bytes", "read_versioned", "fetch"])
def test_a_torn_download_is_read_again(
    far: S3Store, proxy: Proxy, tmp_path: Path, way: str
) -> None:
    content = bytes(range(256)) * 4 * 4096 + b"the end"
    far.replace_bytes("large", content)
    fault = proxy.add("cut", "GET", "large", times=2)
    if way == "fetch":
        far.fetch("large", tmp_path / "large")
        assert (tmp_path / "large").read_bytes() == content
    elif way == "read_versioned":
        found = far.read_versioned("large")
        assert found is not None
        assert found[0] == content
    else:
        assert far.read_bytes("large") == content
    assert fault.num_hit == 2


def test_a_download_torn_without_end_leaves_no_file(
    far: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    far.replace_bytes("large", b"x" * 100_000)
    proxy.add("cut", "GET", "large", times=1000)
    with pytest.raises(StoreError, match=r"cannot read .*/large: "):
        far.fetch("large", tmp_path / "here" / "large")
    assert list((tmp_path / "here").iterdir()) == []


def test_an_object_replaced_between_two_tries_is_not_mixed(far: S3Store, proxy: Proxy) -> None:
    """The chunk that is read again is held to the version that the reading began with."""
    far.replace_bytes("large", b"a" * (CHUNK_BYTES + 1000))
    chunks = far.read_chunks("large")
    assert set(next(chunks)) == {ord("a")}
    far.replace_bytes("large", b"b" * (CHUNK_BYTES + 1000))
    with pytest.raises(StoreError, match=r"cannot read .*/large: .*run again"):
        next(chunks)


def test_a_manifest_whose_answer_is_lost_is_committed_once(
    far: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"made")
    lost = [proxy.add("lose", "PUT", name) for name in ("manifest.json", "/file", "run.json")]
    made = commit_output(far, planned(), tmp_path, RECORD)
    assert [fault.num_hit for fault in lost] == [1, 1, 1]
    assert find_output(far, type(made), made.stage, made.key) == made
    assert len(far.list("outputs")) == 3


@pytest.mark.parametrize("times", [1, 3])
def test_a_head_whose_answer_is_lost_is_moved_once(far: S3Store, proxy: Proxy, times: int) -> None:
    registry.promote(far, "line", candidate(0, 0), reason="", actor="before")
    fault = proxy.add("lose", "PUT", "head.json", times=times)
    entry = registry.promote(far, "line", candidate(0, 1), reason="", actor="me")
    assert fault.num_hit == times
    history = history_of(far, "line")
    assert history[0] == entry
    assert [each.actor for each in history] == ["me", "before"]
    assert len(far.list("heads/line/entries")) == 1, "the head itself lies in head.json"


def test_a_large_upload_whose_part_is_lost_is_whole(
    far: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    """A multipart upload: one part's answer is lost, one part is refused, the end is lost."""
    source = tmp_path / "weights"
    source.write_bytes(b"w" * (33 * 2**20))
    faults = [
        proxy.add("lose", "PUT", "partNumber=1"),
        proxy.add("refuse", "PUT", "partNumber=2"),
        proxy.add("lose", "POST", "uploadId="),
    ]
    far.upload("weights", source)
    assert [fault.num_hit for fault in faults] == [1, 1, 1]
    assert far.size("weights") == source.stat().st_size
