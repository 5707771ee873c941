"""Stages on pools, on a real server with real workers: shared out, killed, cancelled, resumed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.put_up import automations
from flows.continual_sequence import continual_sequence
from flows.dispatch import SequenceResult
from tasks.manifests import sha256_hex
from tasks.sequence import SequenceSettings, StoreSettings
from tasks.store.objects import FolderStore
from tests.deployments.pool_world import (
    PoolServer,
    Run,
    await_true,
    descendants,
    executed,
    is_alive,
    one_task,
    pool_server,
)

pytestmark = pytest.mark.timeout(900)
HEARTBEAT_LOST = 45  # seconds; a run sends one every 30 s, Prefect's shortest
NEVER_BEGUN = 10  # seconds, the shortest that Prefect allows
RESUMED_AFTER = 20
CHECKPOINT_EVERY = 10
LONG = {"num_steps": 100, "warmup_steps": 4}
LONGER = {"num_steps": 240, "warmup_steps": 4}
"""Cancelling takes up to half a minute, in which a fast machine goes on learning."""


def manifests(sequence: SequenceSettings) -> dict[str, str]:
    """Digests of all outputs but the report, which says how the work was done."""
    store = FolderStore(Path(sequence.store.url))
    return {
        path: sha256_hex(store.read_bytes(path))
        for path in store.list("outputs")
        if path.endswith("manifest.json") and not path.startswith("outputs/report")
    }


def last_checkpoint(sequence: SequenceSettings) -> int:
    """The step of the only checkpoint in the store; 0 when there is none."""
    for path in Path(sequence.store.url).glob("checkpoints/finetune/*/latest.json"):
        return int(json.loads(path.read_text())["step"])
    return 0


def with_auto_batches(sequence: SequenceSettings) -> SequenceSettings:
    """The sequence with a batch size that workers settle."""
    generator = sequence.synthesis.generator.model_copy(update={"batch_size": "auto"})
    synthesis = sequence.synthesis.model_copy(update={"generator": generator})
    return sequence.model_copy(update={"synthesis": synthesis})


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolServer]:
    with pool_server(tmp_path_factory.mktemp("pools"), HEARTBEAT_LOST) as made:
        for name in ("gpu-1", "gpu-2", "gpu-3", "cpu-1"):
            made.start_worker(name.split("-")[0], name)
        yield made


@pytest.fixture(scope="module")
def never_begun(pools: PoolServer) -> tuple[Run, float]:
    """A sequence whose worker took it and died, when its crash was seen: in seconds, not minutes.

    The automation is the product's but for its patience, and watches this run alone.
    """
    (automation,) = [each for each in automations() if each.name == "gift-never-begun"]
    content = automation.model_dump(mode="json")
    assert content["trigger"]["within"] == 1800
    deployment = pools.server.api("/deployments/name/gift/continual-sequence")["id"]
    far = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
    wanted = {"name": "never-begun", "state": far}
    run = pools.server.api(f"/deployments/{deployment}/create_flow_run", wanted)
    watched = {"prefect.resource.id": f"prefect.flow-run.{run['id']}"}
    content["trigger"] |= {"within": NEVER_BEGUN, "match": watched}
    pools.server.api("/automations/", {**content, "name": "gift-never-begun-soon"})
    taken = {"state": {"type": "PENDING"}, "force": True}
    pools.server.api(f"/flow_runs/{run['id']}/set_state", taken)
    return pools.await_state(run, "CRASHED", seconds=120), time.monotonic()


def test_a_run_that_its_worker_took_and_never_began_counts_as_crashed(
    never_begun: tuple[Run, float],
) -> None:
    run, _ = never_begun
    message = "A worker took this run half an hour ago and it has not begun."
    assert (run["state"]["message"], run["run_count"]) == (message, 0)


@pytest.fixture(scope="module")
def on_pools(
    pools: PoolServer, tiny_data: Path
) -> tuple[SequenceSettings, SequenceResult, SequenceSettings, SequenceResult]:
    """The same sequence twice, in two stores: on the pool, and in this process."""
    there, here = (
        with_auto_batches(one_task(tiny_data, pools.folder / n)) for n in ("there", "here")
    )
    there = executed(there, stages="pools", generation_runs=3)
    return there, continual_sequence(sequence=there), here, continual_sequence(sequence=here)


def test_stages_on_three_workers_give_the_manifests_of_one_process(
    pools: PoolServer,
    on_pools: tuple[SequenceSettings, SequenceResult, SequenceSettings, SequenceResult],
) -> None:
    there, result, here, in_process = on_pools
    assert manifests(there) == manifests(here)
    assert sum(path.startswith("outputs/batch-size/") for path in manifests(there)) == 1
    assert result.manifest.scores == in_process.manifest.scores
    assert result.manifest.matrix == in_process.manifest.matrix
    parent = pools.named("tiny")[0]
    sent = pools.children(parent)
    parts = [f"synthesize-warm-{number}-{number}" for number in range(3)]
    assert sorted(run["name"] for run in sent) == sorted(
        [
            *parts,
            "evaluate-after-pretrained",
            "evaluate-after-warm",
            "finetune-warm",
            "estimate-fisher-warm",
        ]
    )
    assert {run["state"]["type"] for run in sent} == {"COMPLETED"}
    takers = {
        name: [run["name"] for run in sent if run["name"] in parts and pools.took(name, run)]
        for name in pools.workers
    }
    assert sorted(map(len, takers.values())) == [0, 1, 1, 1], takers  # none for the worker of cpu


def test_a_stage_that_stands_is_found_and_no_run_is_sent(
    pools: PoolServer,
    on_pools: tuple[SequenceSettings, SequenceResult, SequenceSettings, SequenceResult],
) -> None:
    there, result, _, _ = on_pools
    again = continual_sequence(sequence=there)
    assert (again.num_computed, again.manifest) == (0, result.manifest)
    assert pools.children(pools.named("tiny")[-1]) == []


def test_lost_workers_are_noticed_and_others_go_on_from_the_last_checkpoint(
    pools: PoolServer, tiny_data: Path
) -> None:
    """SIGKILL to the worker of the fine-tuning and its flow process, then to the sequence's."""
    plain = one_task(tiny_data, pools.folder / "killed", **LONG)
    plain = plain.model_copy(update={"name": "killed", "method": "finetune"})
    sequence = executed(plain, stages="pools", checkpoint_every=CHECKPOINT_EVERY)
    parent = pools.begin(sequence)
    await_true(lambda: last_checkpoint(sequence) >= 2 * CHECKPOINT_EVERY, 400)
    (first,) = [run for run in pools.children(parent) if run["name"] == "finetune-warm"]
    pools.kill_with_runs(pools.holder(first))
    kept = last_checkpoint(sequence)
    assert 0 < kept < LONG["num_steps"]

    first = pools.await_state(first, "CRASHED")
    assert first["state"]["message"] == "No sign of life for 90 s; its worker is lost."
    await_true(lambda: last_checkpoint(sequence) > kept, 400)
    pools.kill_with_runs("cpu-1")
    pools.start_worker("cpu", "cpu-2")
    parent = pools.await_state(parent, "COMPLETED", seconds=400)

    assert parent["run_count"] == 2
    _, second = [run for run in pools.children(parent) if run["name"] == "finetune-warm"]
    goes_on = f"warm goes on from its checkpoint after step {kept}"
    assert goes_on in pools.logs(second)
    assert manifests(sequence) == manifests(unbroken(plain, pools.folder / "unbroken"))


def unbroken(sequence: SequenceSettings, store: Path, **execution: object) -> SequenceSettings:
    """The same sequence in this process and a store of its own, learnt."""
    alone = executed(sequence, **execution).model_copy(
        update={"name": f"{sequence.name}-alone", "store": StoreSettings(url=str(store))}
    )
    continual_sequence(sequence=alone)
    return alone


def test_a_cancelled_sequence_leaves_no_process_and_goes_on_when_it_is_retried(
    pools: PoolServer, tiny_data: Path
) -> None:
    """Cancelled while two ranks learn on another worker; then `prefect flow-run retry`."""
    plain = one_task(tiny_data, pools.folder / "cancelled", **LONGER)
    plain = plain.model_copy(update={"name": "cancelled", "method": "finetune"})
    sequence = executed(plain, stages="pools", processes=2, checkpoint_every=CHECKPOINT_EVERY)
    parent = pools.begin(sequence)
    await_true(lambda: last_checkpoint(sequence) >= CHECKPOINT_EVERY, 400)
    ours = descendants(list(pools.workers.values()))
    assert len([each for each in ours if "tasks.launch" in each.cmdline()]) == 3

    pools.server.prefect("flow-run", "cancel", parent["id"])
    began = time.monotonic()
    await_true(lambda: not any(map(is_alive, ours)), 45)
    print(f"no process left after {time.monotonic() - began:.1f} s")
    parent = pools.await_state(parent, "CANCELLED")
    (stopped,) = [run for run in pools.children(parent) if run["name"] == "finetune-warm"]
    pools.await_state(stopped, "CANCELLED")
    kept = last_checkpoint(sequence)
    assert 0 < kept < LONGER["num_steps"]

    pools.server.prefect("flow-run", "retry", parent["id"])
    parent = pools.await_state(parent, "COMPLETED")
    *_, resumed = [run for run in pools.children(parent) if run["name"] == "finetune-warm"]
    assert f"warm goes on from its checkpoint after step {kept}" in pools.logs(resumed)
    alone = unbroken(plain, pools.folder / "two-ranks", processes=2)
    assert manifests(sequence) == manifests(alone)


def test_a_run_that_never_began_is_not_taken_up_again(
    pools: PoolServer, never_begun: tuple[Run, float]
) -> None:
    """It would crash for ever; a sequence that had begun is back in its pool by now."""
    run, crashed = never_begun
    time.sleep(max(0.0, crashed + RESUMED_AFTER + 15 - time.monotonic()))
    assert pools.runs(id={"any_": [run["id"]]})[0]["state"]["type"] == "CRASHED"
