"""What a run on a worker is given, what it is told by its end, and when it is refused at once."""

import json
from pathlib import Path

import pytest

from flows.continual_sequence import continual_sequence
from flows.handover import handed_over, taken
from flows.pools import Pools
from flows.stages import synthesize
from gift_core.errors import Diverged, SettingsError, StoreError, error_named
from tasks.manifests import FileRef
from tasks.sequence import SequenceSettings
from tasks.store.objects import FolderStore
from tasks.store.sweep import find_unreferenced
from tasks.synthesize import PairsPlan, plan_pairs
from tests.worlds import tiny_sequence

MOST_BYTES = 524_288  # what Prefect's server accepts as the parameters of a run


def plan_of(num_pairs: int, data: Path) -> PairsPlan:
    settings = tiny_sequence(data, "unused").synthesis.model_copy(update={"num_pairs": num_pairs})
    pool = [f"a photo of a thing number {number} of a long list." for number in range(1000)]
    return plan_pairs("warm", 1, pool, settings, "generator", 7)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_ten_thousand_prompts_are_handed_over_by_reference(
    store: FolderStore, tiny_data: Path
) -> None:
    plan = plan_of(10_000, tiny_data)
    assert len(plan.model_dump_json()) > MOST_BYTES
    given = handed_over(store, plan)
    assert len(json.dumps(given)) < 500
    arrived = synthesize.validate_parameters({"store": {"url": store.url}, "plan": given})["plan"]
    assert isinstance(arrived, FileRef)
    assert taken(store, PairsPlan, arrived) == plan
    assert handed_over(store, plan) == given


def test_a_small_plan_is_its_own_parameter(store: FolderStore, tiny_data: Path) -> None:
    plan = plan_of(6, tiny_data)
    given = handed_over(store, plan)
    arrived = synthesize.validate_parameters({"store": {"url": store.url}, "plan": given})["plan"]
    assert arrived == plan
    assert store.list("") == []


def test_an_altered_parameter_is_refused(store: FolderStore, tiny_data: Path) -> None:
    ref = FileRef.model_validate(handed_over(store, plan_of(10_000, tiny_data)))
    store.replace_bytes(ref.path, b"{}")
    with pytest.raises(StoreError, match="was altered"):
        taken(store, PairsPlan, ref)


def test_gc_removes_old_parameters(store: FolderStore, tiny_data: Path) -> None:
    ref = FileRef.model_validate(handed_over(store, plan_of(10_000, tiny_data)))
    assert find_unreferenced(store, 3600).groups == ()
    (group,) = find_unreferenced(store, -1).groups
    assert group.paths == (ref.path,)


@pytest.mark.parametrize(
    ("num_runs", "missing", "parts"),
    [
        (1, [0, 1, 2, 3], [(0, 3)]),
        (3, [0, 1, 2, 3, 4, 5, 6], [(0, 1), (2, 3), (4, 6)]),
        (3, [2, 5], [(2, 2), (5, 5)]),
        (8, [0], [(0, 0)]),
    ],
)
def test_missing_shards_are_shared_out_in_contiguous_parts(
    num_runs: int,
    missing: list[int],
    parts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.pools.check_deployments", lambda _names: None)
    found = Pools(num_runs)._parts(missing)
    assert [(part.first, part.last) for part in found] == parts


def test_an_error_that_a_worker_told_keeps_its_kind() -> None:
    assert isinstance(error_named("Diverged", "step 7"), Diverged)
    assert str(error_named("Diverged", "step 7")) == "step 7"
    assert error_named("RuntimeError", "no") is None
    assert error_named("one_line", "no") is None


@pytest.mark.usefixtures("prefect_api")
def test_pools_without_deployments_are_refused_before_any_work(
    tiny_data: Path, tmp_path: Path
) -> None:
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"))
    execution = {**dict(sequence.execution), "stages": "pools"}
    wanted = SequenceSettings.model_validate({**dict(sequence), "execution": execution})
    with pytest.raises(SettingsError, match="needs the deployment synthesize/synthesize, and"):
        continual_sequence(sequence=wanted)
    assert FolderStore(tmp_path / "store").list("outputs") == []
