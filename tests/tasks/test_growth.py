"""A sequence grown by a task: what its head has learnt, and whose settings nobody knows."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gift_core.errors import DataError, SettingsError, StoreError
from gift_core.selection import Selection
from tasks.batch_size import with_batch_size
from tasks.generation import SynthesisSettings
from tasks.growth import _same_pairs, grown, models_of, tasks_of
from tasks.sequence import TaskSettings
from tasks.store.arrivals import Arrival, Arrivals
from tasks.store.heads import HeadEntry, ModelReference, head_of
from tasks.store.objects import FolderStore
from tasks.synthesize import commit_pairs, plan_pairs, planned_shard
from tests.deployments.made_up_stores import reported
from tests.tasks.conftest import MadeUpRun
from tests.tasks.test_synthesize import POOL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """Digits and then photos, both promoted."""
    return reported(FolderStore(tmp_path_factory.mktemp("growth") / "store"))


@pytest.fixture
def head(run: MadeUpRun) -> HeadEntry:
    found = head_of(run.store, "little")
    assert found is not None
    return found


def task(name: str, place: str = "data") -> TaskSettings:
    return TaskSettings.model_validate({"name": name, "data": {"kind": "parquet", "path": place}})


def test_the_tasks_of_a_head_in_order(run: MadeUpRun, head: HeadEntry) -> None:
    models = models_of(run.store, head)
    assert models == run.models
    assert tasks_of(models) == ("digits", "photos")
    wanted = grown(run.sequence, Arrivals(sequence="little"), models, task("birds"))
    assert [each.name for each in wanted.tasks] == ["digits", "photos", "birds"]
    assert wanted.tasks[:2] == run.sequence.tasks


def test_what_arrived_has_its_own_settings_and_the_file_need_not_list_it(
    run: MadeUpRun, head: HeadEntry
) -> None:
    models, file = models_of(run.store, head), run.sequence
    file = file.model_copy(update={"tasks": file.tasks[:1]})
    with pytest.raises(SettingsError, match="its head has learnt photos, which is neither"):
        grown(file, Arrivals(sequence="little"), models, task("birds"))
    arrived = Arrival(
        number=1,
        name="photos",
        identity="0" * 64,
        settings=task("photos", "inbox/photos").model_dump(mode="json"),
        digests={},
        state="learnt",
        model=ModelReference(output=f"finetune/{models[-1].key}", digest=models[-1].digest),
    )
    arrivals = Arrivals(sequence="little", tasks=(arrived,))
    wanted = grown(file, arrivals, models, task("birds"))
    assert [each.data.path for each in wanted.tasks] == ["data/digits", "inbox/photos", "data"]


@pytest.mark.parametrize("name", ["digits", "held-out"])
def test_a_name_that_is_taken_is_the_new_tasks_fault(
    run: MadeUpRun, head: HeadEntry, name: str
) -> None:
    models = models_of(run.store, head)
    with pytest.raises(DataError, match=f"has a data set called {name} already"):
        grown(run.sequence, Arrivals(sequence="little"), models, task(name))


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    run = reported(FolderStore(tmp_path / "store"))
    head = head_of(run.store, "little")
    assert head is not None
    path = f"outputs/finetune/{run.models[1].key}/manifest.json"
    run.store.delete(path)
    with pytest.raises(StoreError, match="is missing or was altered, and the head of little"):
        models_of(run.store, head)


def synthesis(**generator: object) -> SynthesisSettings:
    return SynthesisSettings.model_validate({"num_pairs": 4, "generator": generator})


@pytest.mark.parametrize(
    ("made", "asked", "same"),
    [
        (synthesis(), synthesis(model="org/moved"), True),
        (synthesis(), synthesis(batch_size=8), False),
        (synthesis(batch_size="auto"), synthesis(batch_size="auto"), True),
        (synthesis(batch_size="auto"), synthesis(), False),  # 16 both, and other pairs
        (synthesis(loras=[{"path": "org/style"}]), synthesis(loras=[{"path": "org/style"}]), True),
        (
            synthesis().model_copy(update={"selection": Selection(candidates=2)}),
            synthesis().model_copy(update={"selection": Selection(candidates=2)}),
            True,
        ),
    ],
)
def test_the_pairs_of_a_head_are_those_that_would_be_made(
    made: SynthesisSettings, asked: SynthesisSettings, same: bool, run: MadeUpRun, tmp_path: Path
) -> None:
    store, (parent, model, *_) = FolderStore(tmp_path), run.models
    plan = plan_pairs("digits", 1, POOL, made, "painter@1", 7, parent)
    plan = with_batch_size(store, plan, pytest.fail, torch.device("cpu"))
    shard = planned_shard(plan, 0).model_copy(update={"num_pairs": 4})
    pairs = commit_pairs.fn(store, plan, [shard]).manifest
    learnt = model.model_copy(update={"inputs": {"pairs": pairs.digest}})
    head = SimpleNamespace(lineage={f"synthesize/{pairs.key}": pairs.digest})
    sequence = SimpleNamespace(synthesis=asked, seed=7)
    wanted = SimpleNamespace(
        sequence=sequence, generator_identity="painter@1", prompt_pool=lambda _task: POOL
    )
    task = SimpleNamespace(name="digits", index=1)
    assert _same_pairs(store, wanted, head, task, (parent, learnt)) is same  # type: ignore[arg-type]
