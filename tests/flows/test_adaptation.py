"""A whole sequence whose generator is adapted: what is made, found, kept, shared and refused.

The flows' functions run as plain ones: nothing here is about Prefect.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prefect import Flow, Task

from flows import stages
from flows.continual_sequence import continual_sequence
from flows.dispatch import SequenceResult
from flows.pool_runs import PoolRun
from flows.pools import Pools
from flows.stages import adapt
from flows.storage import sequence_store
from gift_core.errors import SettingsError
from tasks.check import check_sequence
from tasks.forecast import forecast
from tasks.growth import check_unchanged, models_of
from tasks.manifests import ModelManifest, PairsManifest
from tasks.report import render_report
from tasks.sequence import SequenceSettings, StoreSettings
from tasks.store.heads import head_of
from tasks.store.inventory import candidate_of, take_inventory
from tasks.store.outputs import find_output
from tasks.store.sweep import find_unreferenced
from tasks.store.verify import verify_store
from tests.tasks.test_adapt import adapted

NUM_OUTPUTS = 13  # theta_0, 3 rows, 2 x (pairs, model, adapter, Fisher), sequence


@pytest.fixture(scope="module", autouse=True)
def without_prefect() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in vars(stages).items():
            if isinstance(value, Flow | Task):
                patch.setattr(stages, name, value.fn)
        patch.setattr("flows.turns._limited_to_one", lambda _: False)
        patch.setattr("flows.continual_sequence.get_run_logger", logging.getLogger)
        yield


def learnt(sequence: SequenceSettings) -> SequenceResult:
    result: SequenceResult = continual_sequence.fn(sequence=sequence)
    return result


@pytest.fixture(scope="module")
def run(
    tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SequenceSettings, SequenceResult]:
    store = tmp_path_factory.mktemp("adaptation") / "store"
    sequence = adapted(tiny_data, str(store), evaluation={"batch_size": 8})
    return sequence, learnt(sequence)


def test_each_task_adapts_the_generator_once(
    run: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, result = run
    store = sequence_store(sequence.store)
    assert (result.num_computed, result.num_reused) == (NUM_OUTPUTS, 0)
    manifest = result.manifest
    assert [reference.split("/")[0] for reference in manifest.adapters] == ["adapt", "adapt"]
    warm, cold = (
        find_output(store, PairsManifest, *reference.split("/")) for reference in manifest.pairs
    )
    assert warm is not None
    assert cold is not None
    assert warm.adapted == {}
    assert set(cold.adapted) == {"warm"}
    page = render_report(store, manifest)
    assert f"warm {cold.adapted['warm']}" in page
    assert '<th class="num" scope="col">adapt</th>' in page
    again = learnt(sequence)
    assert (again.num_computed, again.num_reused) == (0, NUM_OUTPUTS)


def test_the_store_keeps_its_adapters(run: tuple[SequenceSettings, SequenceResult]) -> None:
    sequence, result = run
    store = sequence_store(sequence.store)
    head = head_of(store, "tiny")
    assert head is not None
    assert set(result.manifest.adapters) <= set(head.lineage)
    inventory = take_inventory(store)
    assert set(result.manifest.adapters) <= set(candidate_of(inventory, head.model.output).lineage)
    assert find_unreferenced(store, 0).num_objects == 0
    assert verify_store(store).damages == ()


def test_a_sequence_grows_on_it_unless_the_adaptation_was_changed(
    run: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, _ = run
    store = sequence_store(sequence.store)
    head = head_of(store, "tiny")
    assert head is not None
    models = models_of(store, head)
    check_unchanged(store, check_sequence(sequence, store), head, models)
    assert sequence.synthesis.adaptation is not None
    for other in (None, sequence.synthesis.adaptation.model_copy(update={"rank": 3})):
        synthesis = sequence.synthesis.model_copy(update={"adaptation": other})
        plan = check_sequence(sequence.model_copy(update={"synthesis": synthesis}), store)
        with pytest.raises(SettingsError, match="what the replay pairs of task cold are made with"):
            check_unchanged(store, plan, head, models)


def test_without_adaptation_all_up_to_the_first_adapted_pair_is_shared(
    run: tuple[SequenceSettings, SequenceResult],
) -> None:
    sequence, first = run
    synthesis = sequence.synthesis.model_copy(update={"adaptation": None})
    plain = sequence.model_copy(update={"name": "tiny-plain", "synthesis": synthesis})
    result = learnt(plain)
    assert result.num_reused == 6  # theta_0 and its row; pairs, model, Fisher and row of warm
    assert result.manifest.pairs[0] == first.manifest.pairs[0]
    assert result.manifest.adapters == ()
    assert "adapters" not in result.manifest.model_dump(mode="json")


def test_it_is_foreseen(run: tuple[SequenceSettings, SequenceResult]) -> None:
    sequence, _ = run
    stages = {stage.name: stage for stage in forecast(sequence).stages}
    assert (stages["adapt"].runs, stages["adapt"].work) == (2, "12 steps of 2 images")
    assert stages["adapt"].gpu_seconds == pytest.approx(
        3 * 12 * 2 * (32 / 512) ** 2 / 100 / 0.99, rel=1e-6
    )


def test_on_pools_it_is_a_run_of_its_deployment_that_makes_the_same(
    run: tuple[SequenceSettings, SequenceResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, result = run
    store, elsewhere = sequence_store(sequence.store), StoreSettings(url=str(tmp_path))
    for stage in ("pretrained", "finetune"):
        for path in store.list(f"outputs/{stage}"):
            sequence_store(elsewhere).replace_bytes(path, store.read_bytes(path))
    plan = check_sequence(sequence, store)
    model = find_output(store, ModelManifest, *result.manifest.models[1].split("/"))
    sent: list[str] = []

    def at_once(asked: Sequence[PoolRun]) -> None:
        (each,) = asked
        sent.append(f"{each.deployment} {each.name}")
        adapt.fn(**adapt.validate_parameters(each.parameters))

    monkeypatch.setattr("flows.pools.check_deployments", lambda _: None)
    monkeypatch.setattr("flows.pools.run_on_pool", at_once)
    given = plan.tasks[0].data_set, model, sequence.synthesis, plan.generator_identity, 7
    made = [Pools(1).adapt(elsewhere, *given) for _ in range(2)]
    assert [produced.reused for produced in made] == [False, True]
    assert sent == ["adapt/adapt adapt-warm"]
    assert f"adapt/{made[0].manifest.key}" == result.manifest.adapters[0]
    assert made[0].manifest.digest == result.manifest.inputs["adapter-00"]
