"""Checkpoints of a stage: the latest counts, and only when it is whole."""

import json
from pathlib import Path

import pytest

from tasks.manifests import FisherManifest
from tasks.store.objects import FolderStore
from tasks.store.outputs import plan_output
from tasks.store.step_checkpoints import StepCheckpoints

HISTORY = {"step": [1, 2], "task_loss": [1.5, 1.0], "replay_accuracy": [None, 50.0]}


@pytest.fixture
def checkpoints(tmp_path: Path) -> StepCheckpoints:
    manifest = plan_output(
        FisherManifest, name="x", inputs={}, settings={}, model="m", pairs="p", drift=()
    )
    return StepCheckpoints(FolderStore(tmp_path / "store"), manifest)


def again(checkpoints: StepCheckpoints) -> StepCheckpoints:
    """The same place, as another process sees it."""
    other = object.__new__(StepCheckpoints)
    other.__dict__.update(vars(checkpoints) | {"latest": None})
    return other


def written(folder: Path, step: int, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"step-{step:08d}.safetensors"
    file.write_bytes(content)
    return file


def test_nothing_saved_nothing_found(checkpoints: StepCheckpoints, tmp_path: Path) -> None:
    assert checkpoints.fetch(tmp_path / "resume") is None
    assert not (tmp_path / "resume").exists()


def test_the_latest_is_found_with_its_history_and_the_one_before_is_gone(
    checkpoints: StepCheckpoints, tmp_path: Path
) -> None:
    for step, content in ((2, b"old"), (4, b"new")):
        file = written(tmp_path / "local", step, content)
        checkpoints.save(step, file, HISTORY)
        assert not file.exists()
    found = again(checkpoints).fetch(tmp_path / "resume")
    assert found is not None
    assert (found.step, found.history) == (4, HISTORY)
    assert isinstance(found.history["step"][0], int)
    assert (tmp_path / "resume").read_bytes() == b"new"
    names = [path.name for path in (tmp_path / "store").glob("checkpoints/*/*/*")]
    assert sorted(names) == ["latest.json", "step-00000004.safetensors"]


def test_a_run_that_goes_on_replaces_what_it_found(
    checkpoints: StepCheckpoints, tmp_path: Path
) -> None:
    checkpoints.save(2, written(tmp_path / "local", 2, b"old"), HISTORY)
    other = again(checkpoints)
    other.fetch(tmp_path / "resume")
    other.save(6, written(tmp_path / "local", 6, b"new"), HISTORY)
    assert len(list((tmp_path / "store").glob("checkpoints/*/*/*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "not JSON", "another shape"])
def test_what_is_damaged_does_not_count_and_is_said(
    checkpoints: StepCheckpoints, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(2, written(tmp_path / "local", 2, b"content"), HISTORY)
    folder = tmp_path / "store" / checkpoints.directory
    file, latest = folder / "step-00000002.safetensors", folder / "latest.json"
    match damage:
        case "flipped":
            file.write_bytes(b"Content")
        case "cut":
            file.write_bytes(b"cont")
        case "missing":
            file.unlink()
        case "not JSON":
            latest.write_bytes(b"{")
        case "another shape":
            latest.write_text(json.dumps({"step": "two"}))
    assert again(checkpoints).fetch(tmp_path / "resume") is None
    assert not (tmp_path / "resume").exists()
    assert "does not count, the stage begins anew" in caplog.text


def test_removed_when_the_output_stands(checkpoints: StepCheckpoints, tmp_path: Path) -> None:
    checkpoints.save(2, written(tmp_path / "local", 2, b"content"), HISTORY)
    checkpoints.remove()
    assert not list((tmp_path / "store").glob("checkpoints/*/*/*"))
    checkpoints.remove()


def test_said_where_a_person_finds_it(checkpoints: StepCheckpoints, tmp_path: Path) -> None:
    assert checkpoints.place == f"{tmp_path / 'store'}/{checkpoints.directory}"
