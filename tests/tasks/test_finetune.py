"""The fine-tuning stage as a whole: several processes, being stopped, diverging, what it keeps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from gift_core.errors import Diverged, RankLost, SettingsError
from gift_core.step import StepReport, gift_step
from tasks import learning_run
from tasks.finetune import finetune
from tasks.learning import Event
from tasks.manifests import ModelManifest
from tasks.sequence import ExecutionSettings
from tasks.store.checkpoints import load_tensors
from tasks.store.history import read_history
from tasks.store.objects import FolderStore
from tasks.store.outputs import fetch_output
from tasks.store.step_checkpoints import StepCheckpoints
from tests.tasks.learning_world import World

NUM_STEPS = 9


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(
        tmp_path_factory.mktemp("world"), num_steps=NUM_STEPS, warmup_steps=2, learning_rate=2e-5
    )


@pytest.fixture(scope="module")
def alone(world: World) -> ModelManifest:
    """The model that one process learns without being disturbed."""
    return finetune.fn(world.store("alone"), *world.arguments).manifest


def weights(store: FolderStore, manifest: ModelManifest, folder: Path) -> dict[str, torch.Tensor]:
    fetch_output(store, manifest, folder)
    return load_tensors(folder / "open_clip_model.safetensors")


def with_execution(world: World, **changes: object) -> list[Any]:
    execution = ExecutionSettings.model_validate({**dict(world.execution), **changes})
    return [*world.arguments[:-1], execution]


@contextmanager
def at_step(number: int, act: Any) -> Iterator[None]:  # noqa: ANN401 - a callable
    """Do something once, when that step is told."""
    follow = learning_run._Run.follow

    def told(self: learning_run._Run, event: Event) -> None:
        follow(self, event)
        if event["kind"] == "step" and event["step"] == number:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_run._Run, "follow", told)
        yield


def without_key_biases(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Leave out what only rounding moves.

    A key's bias adds the same to all scores of a softmax, so its gradient is zero but for rounding,
    and AdamW makes full steps of that.
    """
    if not name.endswith("attn.in_proj_bias"):
        return weight
    query, _, value = weight.chunk(3)
    return torch.cat([query, value])


def test_two_processes_learn_what_one_learns(
    world: World, alone: ModelManifest, tmp_path: Path
) -> None:
    store = world.store("two")
    produced = finetune.fn(store, *with_execution(world, processes=2)).manifest
    assert produced.key == alone.key
    one = weights(FolderStore(world.folder / "alone"), alone, tmp_path / "one")
    two = weights(store, produced, tmp_path / "two")
    parent = weights(store, world.parent, tmp_path / "parent")
    for name, weight in one.items():
        kept, other = (without_key_biases(name, each) for each in (weight, two[name]))
        assert (kept - other).abs().max() < 1e-5, name
        assert (kept - without_key_biases(name, parent[name])).abs().max() > 5e-5 or (
            name == "logit_scale"
        )
    by_one = read_history(FolderStore(world.folder / "alone"), alone)
    by_two = read_history(store, produced)
    for name, column in by_one.items():
        assert by_two[name] == pytest.approx(column, rel=1e-3, abs=1e-5), name
    assert not list((world.folder / "two").glob("checkpoints/*/*/*"))


def test_a_rank_that_is_killed_ends_the_stage_and_is_named(world: World) -> None:
    """Within 30 s, with no process left; the next run goes on from the checkpoint."""
    store = world.store("lost")
    killed: list[float] = []

    def kill_a_rank() -> None:
        pids = [pid for pid in _processes_with("tasks.launch", "rank") if " 1 " in _command(pid)]
        os.kill(pids[0], signal.SIGKILL)
        killed.append(time.monotonic())

    slow = with_execution(world, processes=2, checkpoint_every=1)
    with at_step(3, kill_a_rank), pytest.raises(RankLost, match=r"rank 1 .*SIGKILL"):
        finetune.fn(store, *slow)
    assert time.monotonic() - killed[0] < 30
    assert not _processes_with("tasks.launch", str(os.getpid()))
    seen: list[int] = []
    follow = learning_run._Run.follow
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            learning_run._Run,
            "follow",
            lambda self, event: (seen.append(event.get("step", 0)), follow(self, event))[1],
        )
        manifest = finetune.fn(store, *world.arguments).manifest
    assert seen[0] >= 3
    assert manifest.num_steps == NUM_STEPS


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _processes_with(*words: str) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if all(word in _command(pid) for word in words)]


class Stopped(Exception):  # noqa: N818 - a test's own
    """What a handler of SIGTERM raises, as Prefect's does."""


@contextmanager
def handled() -> Iterator[None]:
    def raise_stopped(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, raise_stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("processes", [1, 2])
def test_asked_to_stop_it_finishes_the_step_and_keeps_a_checkpoint(
    world: World, alone: ModelManifest, processes: int
) -> None:
    """SIGTERM in a step: the handler of whoever runs the stage hears it, after the checkpoint."""
    store = world.store(f"stopped-{processes}")
    arguments = with_execution(world, processes=processes, checkpoint_every=0)
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with handled(), at_step(4, stop), pytest.raises(Stopped):
        finetune.fn(store, *arguments)
    (left,) = (world.folder / store.url).glob("checkpoints/*/*/*.safetensors")
    assert int(left.stem.removeprefix("step-")) >= 4
    resumed = finetune.fn(store, *world.arguments).manifest
    if processes == 1:
        assert resumed == alone


def test_low_rank_updates_over_two_processes_and_a_stop(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Every rank draws updates of its own; those of rank 0 count, and a resumed run's are kept."""
    world = World.make(
        tmp_path_factory.mktemp("low-rank"),
        num_steps=NUM_STEPS,
        warmup_steps=2,
        learning_rate=1e-3,
        trained={"lora": {"rank": 2}},
    )
    alone = finetune.fn(world.store("alone"), *world.arguments).manifest
    store, arguments = world.store("two"), with_execution(world, processes=2, checkpoint_every=0)
    with (
        handled(),
        at_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(Stopped),
    ):
        finetune.fn(store, *arguments)
    produced = finetune.fn(store, *arguments).manifest
    assert produced.key == alone.key
    one = weights(FolderStore(world.folder / "alone"), alone, tmp_path / "one")
    two = weights(store, produced, tmp_path / "two")
    parent = weights(store, world.parent, tmp_path / "parent")
    assert one.keys() == two.keys() == parent.keys()
    moved = [name for name, weight in one.items() if not torch.equal(weight, parent[name])]
    assert moved
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-5, name


def test_outside_the_main_thread_signals_are_left_alone(world: World, alone: ModelManifest) -> None:
    found: list[ModelManifest] = []
    store = world.store("thread")
    thread = threading.Thread(
        target=lambda: found.append(finetune.fn(store, *world.arguments).manifest)
    )
    thread.start()
    thread.join()
    assert found == [alone]


def test_divergence_names_the_task_and_keeps_the_last_checkpoint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sixth step gives no numbers; the checkpoint after the fourth is kept, and begun from."""
    store, calls = world.store("diverged"), iter(range(1, 100))

    def step(*given: Any) -> StepReport:  # noqa: ANN401 - as gift_step
        if next(calls) == 6:
            raise Diverged("training left finite numbers, task_loss is nan; no weight was changed")
        return gift_step(*given)

    monkeypatch.setattr("gift_core.training.gift_step", step)
    with pytest.raises(Diverged) as caught:
        finetune.fn(store, *world.arguments)
    text = str(caught.value)
    assert text.startswith("warm: step 6 of 9: training left finite numbers, task_loss is nan;")
    assert "use a learning_rate smaller than 2e-05" in text
    assert f"; the checkpoint after step 4 is kept in {store.url}/checkpoints/finetune/" in text
    (kept,) = (world.folder / "diverged").glob("checkpoints/*/*/*.safetensors")
    assert kept.name == "step-00000004.safetensors"


def test_more_processes_than_gpus_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match="2 processes for 1 GPUs; give at most one a GPU"):
        finetune.fn(world.store("gpus"), *with_execution(world, processes=2))


def test_settings_of_execution_do_not_name_the_output(world: World, alone: ModelManifest) -> None:
    store = FolderStore(world.folder / "alone")
    other = with_execution(world, processes=2, compile=True, recompute=True, checkpoint_every=5)
    produced = finetune.fn(store, *other)
    assert produced.reused
    assert produced.manifest == alone


def test_recomputing_activations_gives_the_same_bytes(world: World, alone: ModelManifest) -> None:
    again = finetune.fn(world.store("recomputed"), *with_execution(world, recompute=True))
    assert again.manifest == alone


def test_a_compiler_that_fails_is_named_and_done_without(
    world: World,
    alone: ModelManifest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", fail)
    store = world.store("uncompiled")
    manifest = finetune.fn(store, *with_execution(world, compile=True)).manifest
    assert manifest == alone
    assert "torch.compile is not used: RuntimeError: no C++ compiler" in caplog.text
    assert "long trace" not in caplog.text


def test_checkpoints_left_by_a_run_that_died_after_its_commit_are_removed(
    world: World, alone: ModelManifest, tmp_path: Path
) -> None:
    store = world.store("alone")
    file = tmp_path / "step-00000008.safetensors"
    file.write_bytes(b"weights")
    StepCheckpoints(store, alone).save(8, file, {"step": [8]})
    again = finetune.fn(store, *world.arguments)
    assert again.reused
    assert again.manifest == alone
    assert store.list("checkpoints") == []
