"""Prefect's default database, SQLite, under three sequences at once."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.sequence import SequenceSettings
from tasks.store.address import open_store
from tests.faults.sequences import manifests, one_task
from tests.prefect_server import running_server

pytestmark = pytest.mark.timeout(1800)
NUM_AT_ONCE = 3


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
