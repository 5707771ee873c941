"""The benchmark runs and tells what it promises; no time is judged here."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.generation import main
from tests.benchmarks.generation_commits import main as commits

KEYS = {"setting", "machine", "seconds", "ratio", "equality", "digests"}
SMALL = ["--steps", "2", "--batch", "4", "--single", "2", "--repeats", "2"]


@pytest.mark.parametrize(
    "shape", [[], ["--clock"], ["--shape", "sd15", "--width", "16", "--size", "64"]]
)
def test_the_command_writes_what_it_promises(
    shape: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert main([*SMALL, *shape, "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results.keys() == KEYS
    assert results["equality"]["equal"] is True
    assert len(set(results["digests"])) == 1
    assert [len(results["seconds"][side]) for side in ("single", "batched")] == [2, 2]
    assert "ratio" in capsys.readouterr().out


def test_the_released_loop_makes_other_pictures(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert main([*SMALL, "--against-released", "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["equality"]["equal"] is None
    assert results["equality"]["share"] > 0.1


def test_shards_stored_behind_are_those_stored_in_turn() -> None:
    words = "--shards 3 --pairs 2 --generate 0.01 --upload 0.01 --rounds 2"
    figures = commits(words.split())
    assert figures.keys() == {"seconds", "ratio", "equal digests"}
    assert figures["equal digests"] is True
