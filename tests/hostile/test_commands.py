"""The nastiest inputs through the command itself: an exit code, one line, no trace of Python."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import flows.continual_sequence  # noqa: F401 - `run` imports it, and the clock is on there
from deployments import cli
from gift_core.prompts import format_prompt
from tasks.artifacts import escaped
from tasks.report import render_report, report
from tasks.store.objects import FolderStore
from tests.hostile.harness import watched, within
from tests.tasks.conftest import made_up_run
from tests.worlds import png, square, tiny_sequence, write_split

Spoil = Callable[[Path, dict], object]


def with_sequence(**changes: object) -> Spoil:
    return lambda folder, content: content | changes


def as_bytes(data: bytes) -> Spoil:
    return lambda folder, content: data


def without_data(folder: Path, content: dict) -> object:
    for task in content["tasks"]:
        task["data"]["path"] = str(folder / "nowhere")
    return content


def with_hostile_weights(folder: Path, content: dict) -> object:
    (folder / "w.pt").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    return content | {"model": {"architecture": "RN50", "pretrained": str(folder / "w.pt")}}


def with_endless_header(folder: Path, content: dict) -> object:
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    weights = str(folder / "w.safetensors")
    return content | {"model": {"architecture": "RN50", "pretrained": weights}}


def with_a_torn_data_set(folder: Path, content: dict) -> object:
    write_split(folder / "d" / "train.parquet", [png(square("red", 1))], [0], ["a"])
    file = folder / "d" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-9] + b"\xff" * 9)
    content["tasks"][0]["data"]["path"] = str(folder / "d")
    return content


DATA_SPOILT = [
    (without_data, "tasks.1 (cold): no file"),
    (with_a_torn_data_set, "not a readable Parquet file"),
]


@pytest.mark.parametrize("command", [["run"], ["data", "check"]], ids=" ".join)
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (as_bytes(b"a: " + b"[" * 100_000), "not valid YAML"),
        (as_bytes(b"&a {name: *a}"), "not valid YAML"),
        (as_bytes(b"\xff\xfe\0"), "cannot be read as text"),
        (as_bytes(b"x" * 2_000_000), "larger than"),
        (as_bytes(b"!!python/object/apply:os.system ['true']"), "not valid YAML"),
        (as_bytes(b"name: !!timestamp x"), "a value that YAML cannot read"),
        (with_sequence(name="../../up\x1b[31m"), "name: "),
        (with_sequence(sed=3), "sed: no such setting; did you mean seed?"),
        (with_sequence(finetune={"objective": {"distillation": -1}}), "give settings, each with"),
        (with_sequence(store={"url": "s3://u:hunter2@b"}), "no user or password"),
    ],
)
def test_refused(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: list[str],
    spoil: Spoil,
    sentence: str,
) -> None:
    content = tiny_sequence(tiny_data, str(tmp_path / "store")).model_dump(mode="json")
    spoilt = spoil(tmp_path, content)
    file = tmp_path / "tiny.yaml"
    file.write_bytes(spoilt if isinstance(spoilt, bytes) else yaml.safe_dump(spoilt).encode())
    line = gift(monkeypatch, capfd, tmp_path, *command, str(file))
    assert sentence in line
    assert str(file) in line
    assert "hunter2" not in line


@pytest.mark.parametrize(("spoil", "sentence"), DATA_SPOILT)
def test_spoilt_data_end_a_run_and_are_told_of_by_data_check(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoil: Spoil,
    sentence: str,
) -> None:
    store = str(tmp_path / "store")
    plain = tiny_sequence(tiny_data, store, method="finetune")  # which asks for no generator
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(spoil(tmp_path, plain.model_dump(mode="json"))))
    line = gift(monkeypatch, capfd, tmp_path, "run", str(file))
    assert sentence in line
    assert str(file) in line
    monkeypatch.setattr(sys, "argv", ["gift", "data", "check", str(file)])
    with within(20), watched(tmp_path), pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert (ended.value.code, said.err) == (1, "")
    assert sum(sentence in line for line in said.out.splitlines()) == 1


@pytest.mark.parametrize("spoil", [with_hostile_weights, with_endless_header])
def test_hostile_weights(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoil: Spoil,
) -> None:
    content = tiny_sequence(tiny_data, str(tmp_path / "store")).model_dump(mode="json")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spoil(tmp_path, content)))
    line = gift(monkeypatch, capfd, tmp_path, "run", str(tmp_path / "tiny.yaml"))
    assert "no weights that can be read safely" in line


def gift(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    folder: Path,
    *arguments: str,
) -> str:
    """Run the command in this process; the one line on standard error of exit code 2."""
    monkeypatch.setattr(sys, "argv", ["gift", *arguments])
    capfd.readouterr()
    with within(20), watched(folder), pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert ended.value.code == 2, said.err
    assert "Traceback" not in said.err + said.out
    (line,) = said.err.splitlines()
    assert line.startswith("gift: ")
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    "name", ["../../x", "\x1b[31m", "[red]", "a" * 5000, "a/../b", ".", "nothing"]
)
def test_reports_of_hostile_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    assert gift(monkeypatch, capfd, tmp_path, "report", name, "--store", str(tmp_path / "store"))


@pytest.mark.parametrize("spoilt", ["{", "[" * 10_000, '{"tasks": NaN}', "\x1b[2J"])
def test_reports_of_hostile_manifests(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoilt: str,
) -> None:
    store = tmp_path / "store"
    (store / "reports" / "little").mkdir(parents=True)
    (store / "reports" / "little" / "sequence.json").write_text(spoilt)
    line = gift(monkeypatch, capfd, tmp_path, "report", "little", "--store", str(store))
    assert "is not a sequence's manifest" in line


HOSTILE = "<script>alert(1)</script> [red]{0.__class__}%s | `x` ![i](http://x)"


def test_prompts_and_class_names_are_data(tmp_path: Path) -> None:
    """They are put into prompts as they are, and escaped on the page and in artifacts."""
    assert format_prompt("a {0.__class__} %s {}.", "{}{x}%d") == "a {0.__class__} %s {}{x}%d."
    store = FolderStore(tmp_path / "store")
    run = made_up_run(store, tasks=("digits",), class_names=(HOSTILE, "two"), num_pairs=2)
    page = render_report(store, report.fn(*run.arguments).manifest)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [red]{0.__class__}%s" in page
    for sign in "<>":
        assert sign not in escaped(HOSTILE)
    assert "\\|" in escaped(HOSTILE)
    assert "!\\[" in escaped(HOSTILE).replace("\\!", "!")


def test_names_from_a_store_are_shown_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Markup of rich and signs that a terminal acts on, in the manifest of another's store."""
    store = FolderStore(tmp_path / "store")
    report.fn(*made_up_run(store, tasks=("digits",), num_pairs=2).arguments)
    file = store.root / "reports" / "little" / "sequence.json"
    content = json.loads(file.read_text())
    content["tasks"] = ["[red]t[/red]\x1b[2J"]
    content["panel"] = {"[/]\u202e": content["panel"]["held-out"]}
    file.write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["gift", "report", "little", "--store", str(store.root)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert ended.value.code == 0, said.err
    assert "[red]t[/red]?[2J" in said.out.replace("\n", "")
    assert "\x1b[2J" not in said.out
    assert "\u202e" not in said.out
