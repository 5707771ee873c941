"""The command `gift` as a person uses it: what it prints, and its exit codes."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tasks.data_report import look_at_data
from tasks.sequence import load_sequence
from tests.prefect_server import running_server
from tests.worlds import ROOT, png, square, tiny_sequence

pytestmark = pytest.mark.timeout(300)


def gift(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def sequence_file(tmp_path: Path, tiny_data: Path) -> Path:
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"), method="finetune")
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    return file


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refusal; fails on anything else on standard error."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("gift: ")
    return line


def test_run_prints_the_matrix_and_where_the_report_is(sequence_file: Path, home: Path) -> None:
    done = gift("run", str(sequence_file), PREFECT_HOME=str(home))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "zero-shot" in done.stdout
    assert "Transfer" in done.stdout
    assert "tiny: 7 stage outputs computed, 0 found in the store" in done.stdout
    report = sequence_file.parent / "store" / "reports" / "tiny" / "report.html"
    assert f"Report: {report}" in done.stdout.replace("\n", "")
    assert report.is_file()
    copy = sequence_file.parent / "copy.html"
    store = str(sequence_file.parent / "store")
    again = gift("report", "tiny", "--store", store, "--output", str(copy))
    assert again.returncode == 0, again.stderr
    assert "zero-shot" in again.stdout
    assert copy.read_bytes() == report.read_bytes()


def test_a_refusal_is_exit_code_1_with_the_matrix_so_far(sequence_file: Path, home: Path) -> None:
    content = yaml.safe_load(sequence_file.read_text()) | {"gate": {"min_gain": 100}}
    sequence_file.write_text(yaml.safe_dump(content | {"name": "gated"}))
    done = gift("run", str(sequence_file), PREFECT_HOME=str(home))
    assert done.returncode == 1, done.stderr[-3000:]
    assert "zero-shot" in done.stdout
    assert "Report: " in done.stdout
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("gift: "))
    assert said.startswith("gift: gated: the gate refused the model after warm: warm went from")
    assert "--override" in said
    assert "--override: the reason has 0 characters" in refused(
        gift("run", str(sequence_file), "--override", " ", PREFECT_HOME=str(home))
    )


def test_a_server_started_afterwards_shows_the_history(home: Path) -> None:
    """Runs after the test above, on the same home: what ran without a server is there."""
    with running_server(home) as server:
        request = urllib.request.Request(  # noqa: S310
            f"{server.url}/api/flow_runs/filter",
            data=b"{}",
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            states = {run["name"]: run["state"]["type"] for run in json.load(answer)}
    assert states["tiny"] == states["finetune-warm"] == states["report-tiny"] == "COMPLETED"


def test_data_check_counts_images_and_classes(sequence_file: Path) -> None:
    done = gift("data", "check", str(sequence_file))
    assert done.returncode == 0, done.stderr
    rows = [line.replace("\u2502", " ").split() for line in done.stdout.splitlines()]
    (warm,) = [row for row in rows if row[:2] == ["warm", "train"]]
    assert warm[2:7] == ["10", "10", "-", "2", "-"]
    finding = look_at_data(load_sequence(sequence_file))[0]
    (digest,) = [split.digest for split in finding.splits if split.name == "train"]
    assert warm[7:] == [digest[:8], "ok"]
    assert done.stdout.endswith("tiny.yaml: all 3 data sets are there\n")


def test_a_picture_that_cannot_be_read_is_found_before_or_fails_the_work(
    sequence_file: Path, tiny_data: Path, tmp_path: Path, home: Path
) -> None:
    content = yaml.safe_load(sequence_file.read_text())
    for split in ("train", "test"):
        for colour in ("red", "green"):
            (tmp_path / "odd" / split / colour).mkdir(parents=True)
            picture = tmp_path / "odd" / split / colour / "0.png"
            picture.write_bytes(png(square(colour, 0)))
    picture.write_text("no picture")  # green, of the test split
    odd = {"kind": "image-folder", "path": str(tmp_path / "odd")}
    content["tasks"] = [content["tasks"][0] | {"data": odd}]
    sequence_file.write_text(yaml.safe_dump(content))
    done = gift("data", "check", str(sequence_file), "--pictures")
    assert done.returncode == 1
    said = f"{picture}: not a picture that can be read; replace the file"
    assert f"tasks.0 (warm): {said}\n9 of 10 pictures can be read\n" in done.stdout
    done = gift("run", str(sequence_file), PREFECT_HOME=str(home))
    assert done.returncode == 1  # 2 is for what is refused before any work
    assert f"gift: {said}" in done.stderr.splitlines()
    picture.unlink()
    picture.parent.rmdir()
    (tmp_path / "odd" / "test" / "red" / "0.png").unlink()
    (tmp_path / "odd" / "train" / "red" / "0.png").write_text("no picture")
    done = gift("data", "check", str(sequence_file), "--pictures")
    assert done.returncode == 1
    assert "\n7 of 8 pictures can be read\n" in done.stdout, "a split that is missing hides none"


def test_refusals_are_one_sentence_without_a_trace_of_python(
    sequence_file: Path, tmp_path: Path
) -> None:
    assert "no such sequence file" in refused(gift("run", str(tmp_path / "none.yaml")))
    content = yaml.safe_load(sequence_file.read_text())
    content["finetune"]["weight_decay"] = -1
    sequence_file.write_text(yaml.safe_dump(content))
    line = refused(gift("run", str(sequence_file)))
    assert "finetune.weight_decay" in line
    assert "(got -1" in line


def test_unreachable_object_storage_is_refused_before_work(sequence_file: Path) -> None:
    done = gift(
        "run",
        str(sequence_file),
        "--store",
        "s3://bucket/prefix",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="k",
        AWS_SECRET_ACCESS_KEY="s",
    )
    assert "s3://bucket" in refused(done)


def test_unknown_report_lists_the_known(tmp_path: Path) -> None:
    done = gift("report", "nothing", "--store", str(tmp_path))
    assert "no sequence 'nothing'" in refused(done)


def test_missing_argument_is_the_users_mistake() -> None:
    assert gift("run").returncode == 2
