"""The stage synthesize stores a shard while the next one is made, and loses none that was made."""

import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import stages
from gift_core.errors import StoreError
from tasks.models.generators import Pictures
from tasks.sequence import StoreSettings
from tasks.store.objects import FolderStore
from tasks.synthesize import ShardRange, generate_shard
from tests.tasks.painter import Painter
from tests.tasks.test_synthesize import made, plan_of

ALL = ShardRange(first=0, last=2)


class SlowStore(FolderStore):
    """A store whose uploads take their time, or fail; it notes what it was asked for."""

    def __init__(self, root: Path, during: Callable[[str], None]) -> None:
        super().__init__(root)
        self.during = during

    def upload(self, path: str, source: Path) -> None:
        self.during(path)
        super().upload(path, source)


class Hooked(Painter):
    """A painter that tells when it begins a shard; each shard of the plan is two or one calls."""

    def __init__(self, before: Callable[[int], None]) -> None:
        super().__init__()
        self.before = before

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        if (seeds[0] % 100) % 3 == 0:  # pairs 0, 3 and 6 begin a shard
            self.before(seeds[0] % 100)
        return super().generate(prompts, seeds)


def synthesize(monkeypatch: pytest.MonkeyPatch, store: FolderStore, painter: Painter) -> None:
    """The stage's own body, without Prefect."""

    @contextmanager
    def opened(_settings: StoreSettings):  # type: ignore[no-untyped-def]  # noqa: ANN202
        yield store

    monkeypatch.setattr(stages, "stage_store", opened)
    monkeypatch.setattr(stages, "generate_shard", generate_shard.fn)
    monkeypatch.setattr(stages, "LazyGenerator", lambda *_given: lambda: painter)
    assert stages.synthesize.fn(StoreSettings(url=store.url), plan_of(), ALL) is None


def outputs(store: FolderStore) -> dict[str, bytes]:
    """Everything in a store but the run records, which tell the time."""
    return {
        path: store.read_bytes(path)
        for path in store.list("outputs")
        if not path.endswith("/run.json")
    }


def test_a_shard_is_stored_while_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upload but the last ends only after the next shard was begun: in turn, none would."""
    begun = {start: threading.Event() for start in (0, 3, 6)}
    stored: list[int] = []

    def upload(path: str) -> None:
        start = int(path.removesuffix(".parquet")[-6:])
        assert start == 6 or begun[start + 3].wait(20)
        assert start == 0 or not begun[6].is_set() or stored  # never two behind
        stored.append(start)

    store = SlowStore(tmp_path / "slow", upload)
    synthesize(monkeypatch, store, Hooked(lambda start: begun[start].set()))
    assert stored == [0, 3, 6]
    plain = FolderStore(tmp_path / "plain")
    made(plain, plan_of(), Painter())
    assert outputs(store) == outputs(plain)


def test_an_upload_that_fails_is_raised_and_the_shard_after_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload(path: str) -> None:
        if path.endswith("pairs-000000.parquet"):
            raise StoreError(f"cannot write {path}")

    store, begun = SlowStore(tmp_path / "store", upload), []
    with pytest.raises(StoreError, match=r"cannot write outputs/synthesize-shard/.*000000"):
        synthesize(monkeypatch, store, Hooked(begun.append))
    assert begun == [0, 3]
    (manifest,) = [path for path in store.list("outputs") if path.endswith("manifest.json")]
    assert b'"start":3' in store.read_bytes(manifest)


def test_a_cancelled_run_keeps_the_shard_that_it_was_storing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploading = threading.Event()

    def cancel(start: int) -> None:
        if start == 3:
            assert uploading.wait(20)
            raise KeyboardInterrupt

    store = SlowStore(tmp_path / "store", lambda _path: uploading.set())
    with pytest.raises(KeyboardInterrupt):
        synthesize(monkeypatch, store, Hooked(cancel))
    (manifest,) = [path for path in store.list("outputs") if path.endswith("manifest.json")]
    assert b'"start":0' in store.read_bytes(manifest)
    assert not [each for each in threading.enumerate() if each.name.startswith("gift-commit")]
    painter = Painter()
    synthesize(monkeypatch, store, painter)
    assert sum(len(call) for call in painter.calls) == 4  # of seven: the first shard was found
