"""The benchmark runs, both ways answer alike, and it tells what it promises; no time is judged."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.evaluation import main

KEYS = {"setting", "seconds", "processor_seconds", "ratio", "equality"}
SMALL = ["--models", "2", "--tasks", "2", "--images", "5", "--classes", "3", "--width", "64"]


def test_the_command_writes_what_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert main([*SMALL, "--repeats", "1", "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results.keys() == KEYS
    assert results["equality"] == {"equal": True, "answers": 20, "different": 0}
    for kind in ("seconds", "processor_seconds"):
        assert all(len(results[kind][way]) == 1 for way in ("plain", "ours"))
    assert results["ratio"]["median"] > 0
    assert "0 of 20 answers differ" in capsys.readouterr().out
