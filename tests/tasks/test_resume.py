"""A fine-tuning that is killed goes on where it was, and ends bit for bit as if it had not been."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.learning_world import World
from tests.worlds import ROOT

NUM_STEPS, NUM_KILLS = 14, 20


@pytest.mark.timeout(900)  # forty runs: a minute and a half alone, more on a busy machine
def test_killed_at_20_random_steps_and_resumed_it_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL at some moment after a random step; a checkpoint stands every second step."""
    World.make(tmp_path / "world", num_steps=NUM_STEPS, warmup_steps=4, collapse={"share": 0.0})
    dice = random.Random(20)  # noqa: S311 - not a secret
    steps = [dice.randint(1, NUM_STEPS - 2) for _ in range(NUM_KILLS)]
    asked = {"folder": str(tmp_path / "world"), "steps": steps, "seed": 20}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    run = subprocess.run(
        [sys.executable, "-m", "tests.tasks.killed_runs", str(tmp_path / "asked.json")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["num_steps"] == NUM_STEPS
    assert len(told["outcomes"]) == NUM_KILLS
    for outcome in told["outcomes"]:
        assert outcome["was_killed"], outcome
        assert outcome["same"], outcome
        # Never more than a checkpoint's interval is done twice: two steps.
        assert outcome["first_step_again"] >= outcome["killed_after"] - 1, outcome
        assert outcome["left_over"] == 0, outcome
