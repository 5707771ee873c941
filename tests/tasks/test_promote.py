"""The stage promote and what a refusal leaves: head, history, report."""

import json
from pathlib import Path

import pytest

from gift_core.gate import GatePolicy
from tasks.promote import Decision, promote, refusal, verdict_rows
from tasks.report import report
from tasks.store.heads import head_of, history_of
from tasks.store.objects import FolderStore
from tests.tasks.conftest import MadeUpRun, made_up_run

STRICT = GatePolicy(max_drop_per_task=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """Digits and then photos, which costs digits and held-out 14 points."""
    store = FolderStore(tmp_path_factory.mktemp("forgets"))
    return made_up_run(store, "little", ("digits", "photos"), "finetune")


def decide(
    run: MadeUpRun,
    store: FolderStore,
    number: int,
    policy: GatePolicy,
    override: str | None = None,
) -> Decision:
    """Put the model after task `number` before the gate, its head kept in `store`."""
    made = (*run.models[: number + 1], *run.scores[: number + 1])
    lineage = {f"{each.stage}/{each.key}": each.digest for each in made}
    rows = run.scores[number - 1 : number + 1]
    return promote.fn(store, "little", policy, run.models[number], lineage, *rows, override, "test")


@pytest.fixture
def heads(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "heads")


def test_without_a_gate_everything_is_promoted_once(run: MadeUpRun, heads: FolderStore) -> None:
    for _ in range(2):
        for number in (1, 2):
            assert decide(run, heads, number, GatePolicy()).stands
    history = history_of(heads, "little")
    assert [entry.model.digest for entry in history] == [m.digest for m in run.models[:0:-1]]
    assert [(entry.verdict, entry.reason) for entry in history] == [(None, "no gate is set")] * 2
    assert set(history[0].lineage.values()) == {m.digest for m in (*run.models, *run.scores)}


def test_a_refusal_leaves_the_head_and_tells_the_rows(
    run: MadeUpRun, heads: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = decide(run, heads, 1, STRICT)
    assert first.entry is not None
    assert (first.entry.kind, first.entry.reason) == ("promoted", "passed the gate")
    refused = decide(run, heads, 2, STRICT)
    assert (refused.stands, refused.entry) == (False, None)
    assert head_of(heads, "little") == first.entry
    assert "digits fell from 96.0 to 82.0 % (at most 10 points allowed)" in caplog.text
    assert "the head stays at entry 1" in caplog.text
    sentence = refusal("little", "photos", refused.refused)
    assert "the model after photos: digits fell" in sentence


def test_a_verdict_tells_every_row_that_was_looked_at(run: MadeUpRun) -> None:
    policy = GatePolicy(max_drop_per_task=10, min_gain=20)
    assert verdict_rows(policy, *run.scores[1:]) == [
        {
            "data set": "digits", "role": "earlier task", "before, %": 96.0, "after, %": 82.0,
            "change": -14.0, "rule": "max_drop_per_task: 10", "verdict": "broken",
        },
        {
            "data set": "photos", "role": "just learnt", "before, %": 37.0, "after, %": 95.0,
            "change": 58.0, "rule": "min_gain: 20", "verdict": "kept",
        },
        {
            "data set": "held-out", "role": "panel", "before, %": 48.0, "after, %": 34.0,
            "change": -14.0, "rule": "no rule", "verdict": "-",
        },
    ]  # fmt: skip
    first = verdict_rows(GatePolicy(max_transfer_drop=13), *run.scores[:2])
    assert [(row["data set"], row["verdict"]) for row in first] == [
        ("digits", "-"), ("tasks not learnt yet", "broken"), ("held-out", "-"),
    ]  # fmt: skip


def test_an_override_promotes_is_recorded_and_holds(run: MadeUpRun, heads: FolderStore) -> None:
    decide(run, heads, 1, STRICT)
    entry = decide(run, heads, 2, STRICT, "the client asked").entry
    assert entry is not None
    assert (entry.kind, entry.reason) == ("overridden", "the client asked")
    assert entry.verdict is not None
    assert [failure.task for failure in entry.verdict.failures] == ["digits"]
    again = decide(run, heads, 2, STRICT)
    assert (again.stands, again.entry) == (True, None)
    assert len(history_of(heads, "little")) == 2


def test_an_override_is_not_needed_where_nothing_failed(run: MadeUpRun, heads: FolderStore) -> None:
    entry = decide(run, heads, 1, STRICT, "just in case").entry
    assert entry is not None
    assert (entry.kind, entry.reason) == ("promoted", "passed the gate")


def test_a_refused_run_is_reported_as_far_as_it_went(tmp_path: Path) -> None:
    run = made_up_run(FolderStore(tmp_path / "store"), "little", method="finetune")
    failures = decide(run, FolderStore(tmp_path / "heads"), 2, STRICT).refused
    cut = [run.store, run.sequence, run.models[:3], (), (), run.scores[:3]]
    stopped = report.fn(*cut, failures).manifest
    assert (stopped.tasks, stopped.refused) == (("digits", "photos"), failures)
    assert [len(row) for row in stopped.matrix] == [2, 2]
    page = run.store.read_bytes("reports/little/report.html").decode()
    assert "Stopped by the gate after photos" in page
    assert "1 of 3 tasks were not begun" in page
    assert "<td>digits</td>" in page
    stored = json.loads(run.store.read_bytes("reports/little/sequence.json"))
    assert stored["refused"][0]["task"] == "digits"
    passed = report.fn(*run.arguments).manifest
    assert (passed.refused, len(passed.tasks)) == ((), 3)
    assert "Stopped by the gate" not in run.store.read_bytes("reports/little/report.html").decode()


def test_the_same_rows_refused_and_let_pass_are_two_reports(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    run = made_up_run(store, "little", ("digits", "photos"), "finetune")
    failures = decide(run, store, 2, STRICT).refused
    assert report.fn(*run.arguments, failures).manifest.refused == failures
    assert report.fn(*run.arguments).manifest.refused == ()
