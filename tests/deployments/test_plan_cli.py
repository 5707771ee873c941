"""`gift data check` and `gift run --dry-run`: what they print, and their exit codes."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.cli import app
from tests.worlds import ROOT, tiny_sequence

ORDER_1 = ROOT / "deployments" / "sequences" / "mtil-order-1.yaml"


def gift(*arguments: str, columns: int = 140) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})


def test_data_check_names_everything_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = gift("data", "check", str(ORDER_1), columns=80)
    assert done.exit_code == 1
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["sun397", "train", "-", "-", "87,003", "-", "397", "-", "missing"] in rows
    assert done.stdout.count("no folder data/") == 11
    assert "11 of 11 data sets are not as they should be" in done.stdout


def test_a_dry_run_prints_the_plan_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = gift("run", str(ORDER_1), "--dry-run")
    assert done.exit_code == 0, done.output
    for words in (
        "11,000 pairs in 22 shards", "GPU time, estimated", "11 Fisher diagonals",
        "Estimated from:", "Missing on this machine:", "tasks.10 (sun397): no folder data/SUN397",
    ):  # fmt: skip
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_that_the_store_does_not_answer(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "knows")
    file = tmp_path / "tiny.yaml"
    sequence = tiny_sequence(tiny_data, "s3://bucket/prefix")
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    done = gift("run", str(file), "--dry-run")
    assert done.exit_code == 0, done.output
    missing = done.stdout.partition("Missing on this machine:")[2].splitlines()
    assert any("s3://bucket/prefix" in line for line in missing)


def test_a_dry_run_takes_the_options_of_a_run(tmp_path: Path, tiny_data: Path) -> None:
    file = tmp_path / "tiny.yaml"
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"))
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    done = gift("run", str(file), "--dry-run", "--method", "finetune", "--name", "other")
    assert done.exit_code == 0, done.output
    assert "other: finetune, local-dir:" in done.stdout
    assert "synthesize" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]
