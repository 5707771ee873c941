"""Ten kills of the demo's run at random moments, each resumed; `make soak` does a hundred."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.worlds import ROOT


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Pytest's own are too deep: the sockets of decoding workers lie below, in 107 characters."""
    with TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.timeout(900)  # twenty-two runs: two minutes alone, more on a busy machine
def test_ten_killed_runs_end_as_the_unbroken_one(short_folder: Path) -> None:
    """SIGKILL; five on a folder and five on SeaweedFS, one task learnt."""
    command = [sys.executable, "-m", "tests.soak.sweep", "--work", str(short_folder / "sweep")]
    sweep = subprocess.run(
        [*command, "--folder", "5", "--s3", "5", "--tasks", "1", "--seed", "5"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert sweep.returncode == 0, sweep.stdout[-5000:] + sweep.stderr[-3000:]
    outcomes = json.loads((short_folder / "sweep" / "outcomes.json").read_text())
    assert [outcome["name"] for outcome in outcomes] == [
        f"{kind}-{number}" for kind in ("folder", "s3") for number in range(1, 6)
    ]
    assert not any(outcome["wrong"] for outcome in outcomes)
    assert len({outcome["stage"] for outcome in outcomes}) > 3
