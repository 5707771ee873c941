"""The Prefect server gone for a while in mid-run; the default database under three sequences."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.sequence import SequenceSettings
from tasks.store.address import open_store
from tests.faults.sequences import manifests, one_task
from tests.house import FINAL, House
from tests.prefect_server import running_server

pytestmark = pytest.mark.timeout(1800)
OUTAGE_SECONDS = 20
NUM_AT_ONCE = 3


def test_a_server_that_is_gone_for_20_seconds_costs_a_run_nothing(
    house: House, learnt: dict[str, str], tiny_data: Path
) -> None:
    """Its answers are waited for, what it was to be told is told when it is back."""
    run = house.start(one_task(tiny_data, house.store("outage")))
    house.wait_until(lambda: house.running("finetune-warm"))
    house.server.program.kill()
    time.sleep(OUTAGE_SECONDS)
    house.server.restart()
    house.wait_until(lambda: house.state(run) in FINAL)
    assert house.state(run) == "COMPLETED", house.logs()
    with house.endpoint.environment():
        assert manifests(open_store(house.store("outage"))) == learnt


def test_the_default_database_loses_no_state_of_three_sequences_at_once(
    tiny_data: Path, tmp_path: Path
) -> None:
    """SQLite has one writer at a time; what does not get its turn is tried again."""
    stores = [tmp_path / f"store-{number}" for number in range(NUM_AT_ONCE)]
    with running_server(tmp_path / "prefect") as server:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "deployments.cli", "run", file_of(tiny_data, store)],
                env=server.environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for store in stores
        ]
        said = [process.communicate(timeout=600)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * NUM_AT_ONCE, said
        runs = server.flow_runs()
        tasks = server.api("/task_runs/filter", {"limit": 200})
    first, *others = (manifests(open_store(str(store))) for store in stores)
    assert others == [first] * (NUM_AT_ONCE - 1)
    assert len(runs) % NUM_AT_ONCE == 0
    assert len(runs) // NUM_AT_ONCE >= 8
    assert {run["state"]["type"] for run in runs} == {"COMPLETED"}
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}


def file_of(data: Path, store: Path) -> str:
    """A sequence file for the command."""
    sequence: SequenceSettings = one_task(data, str(store))
    file = store.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    return str(file)
