"""Scores one by one: what was scored is found, what was decoded stays, what a row hangs on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from gift_core.errors import DataError
from tasks.check import Plan, PlannedTask, check_sequence
from tasks.data.splits import Split
from tasks.evaluate import evaluate
from tasks.manifests import ModelManifest, Score, ScoreManifest, ScoresManifest
from tasks.pretrained import take_pretrained
from tasks.sequence import EvaluationSettings
from tasks.store.checkpoints import load_tensors
from tasks.store.inventory import take_inventory
from tasks.store.objects import FolderStore
from tasks.store.outputs import Produced, fetch_output, find_output, plan_output, run_output
from tasks.store.verify import verify_store
from tests.worlds import tiny_sequence


@dataclass
class World:
    store: FolderStore
    plan: Plan
    model: ModelManifest
    cache: Path

    def evaluate(
        self, tasks: tuple[PlannedTask, ...], precision: Literal["fp32", "bf16"] = "fp32"
    ) -> Produced[ScoresManifest]:
        """The row of the model."""
        settings = EvaluationSettings(batch_size=4, precision=precision)
        return evaluate.fn(
            self.store, self.model, tasks, self.plan.panel, settings, str(self.cache)
        )

    @property
    def scores(self) -> set[str]:
        return {path.split("/")[2] for path in self.store.list("outputs/score")}


@pytest.fixture
def world(tiny_data: Path, tmp_path: Path) -> World:
    """The miniature's CLIP, in the store as if it had just learnt the first task."""
    store = FolderStore(tmp_path / "store")
    sequence = tiny_sequence(tiny_data, store.url, method="finetune")
    plan = check_sequence(sequence, store)
    return World(store, plan, learnt(store, plan, "warm", 0), tmp_path / "cache")


def learnt(store: FolderStore, plan: Plan, task: str, seed: int) -> ModelManifest:
    """An output with theta_0's files that says it has learnt a task."""
    theta_0 = take_pretrained.fn(store, plan.sequence.model, plan.model_identity).manifest
    model = plan_output(
        ModelManifest,
        stage="finetune",
        name=task,
        inputs={"parent": theta_0.digest},
        settings={},
        seed=seed,
        architecture=theta_0.architecture,
        parent=theta_0.digest,
        task=task,
        num_steps=0,
        files=theta_0.files,
    )
    return run_output(store, model, lambda _folder: None).manifest


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that are decoded from now on."""
    seen: list[int] = []
    image: Callable[[Split, int], Image.Image] = Split.image

    def counted(split: Split, index: int) -> Image.Image:
        seen.append(index)
        return image(split, index)

    monkeypatch.setattr(Split, "image", counted)
    return seen


def test_a_new_task_is_all_that_is_scored(
    world: World, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.evaluate(world.plan.tasks[:1])
    before = world.scores
    assert (first.reused, len(before), len(decoded)) == (False, 2, 6), "warm and panel share images"
    both = world.evaluate(world.plan.tasks)
    assert not both.reused
    assert len(world.scores - before) == 1
    assert len(decoded) == 12
    assert (both.manifest.tasks[:1], both.manifest.panel) == (
        first.manifest.tasks,
        first.manifest.panel,
    )
    monkeypatch.setattr("tasks.scoring.open_frozen", None)
    assert world.evaluate(world.plan.tasks).reused
    world.store.delete(f"{both.manifest.directory}/manifest.json")
    assert world.evaluate(world.plan.tasks).manifest == both.manifest, (
        "joined anew, without a model"
    )


def test_other_models_decode_nothing(world: World, decoded: list[int]) -> None:
    world.evaluate(world.plan.tasks)
    world.model = learnt(world.store, world.plan, "warm", 1)
    world.evaluate(world.plan.tasks)
    assert len(decoded) == 12
    assert len(world.scores) == 6


def test_scores_hang_below_their_row(world: World) -> None:
    row = world.evaluate(world.plan.tasks).manifest
    inventory = take_inventory(world.store)
    reached = inventory.reached_from([f"evaluate/{row.key}"])
    assert {f"score/{key}" for key in world.scores} <= reached
    assert verify_store(world.store).damages == ()
    path = world.store.root / row.files[0].path
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert [damage.path for damage in verify_store(world.store).damages] == [row.files[0].path]
    path.unlink()
    assert world.evaluate(world.plan.tasks).manifest == row
    assert path.read_bytes() == whole, "the answers that were gone are there again"


def test_a_row_holds_what_its_scores_say(world: World, tmp_path: Path) -> None:
    row = world.evaluate(world.plan.tasks).manifest
    for score, ref in zip((*row.tasks, *row.panel), row.files, strict=True):
        part = find_output(world.store, ScoreManifest, "score", ref.path.split("/")[2])
        assert part is not None
        assert part.score == score
        fetch_output(world.store, part, tmp_path)
        answers = load_tensors(tmp_path / f"answers-{score.data_set}.safetensors")
        labels = torch.arange(6) % 2  # as the world draws them
        assert int((answers["predicted"] == labels).sum()) == score.num_correct
        right = (answers["predicted"] == labels).double()
        by_class = [float(right[labels == label].mean()) for label in (0, 1)]
        assert score.mean_per_class == pytest.approx(50 * sum(by_class))
        assert ("predicted_seen" in answers) == (score.data_set == "warm"), "the task it learnt"


def test_precision_is_a_setting_of_its_own(world: World) -> None:
    fp32, bf16 = world.evaluate(()), world.evaluate((), precision="bf16")
    assert bf16.manifest.settings["precision"] == "bf16"
    assert "precision" not in fp32.manifest.settings, "rows before it was a setting keep their keys"
    assert len(world.scores) == 2
    sure = [each.manifest.panel[0].calibration_error for each in (fp32, bf16)]
    assert sure[0] != sure[1], "computed in other numbers"
    assert sure[0] == pytest.approx(sure[1], abs=5)


def test_other_data_than_planned_with_are_refused(world: World) -> None:
    task = world.plan.tasks[0]
    other = task.model_copy(update={"digests": task.digests | {"test": "0" * 64}})
    with pytest.raises(DataError, match="warm: its test split is not the one that the run was"):
        world.evaluate((other,))


def test_rows_of_earlier_releases_are_read_and_keep_their_digest(world: World) -> None:
    """Without the measures that came later a score is written as it was."""
    old = Score(data_set="warm", split="test", num_correct=3, num_images=6)
    assert old.model_dump() == {
        "data_set": "warm", "split": "test", "num_correct": 3, "num_images": 6,
    }  # fmt: skip
    row = world.evaluate(world.plan.tasks).manifest
    plain = row.model_copy(update={"tasks": (old,), "panel": (), "files": ()})
    data = plain.model_dump_json()
    assert "retrieval" not in data
    assert ScoresManifest.model_validate_json(data).digest == plain.digest
    assert run_output(world.store, row, lambda _folder: None).reused
