"""The gate on real training: a destructive run is refused, let pass by a person, and taken back."""

import re
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from typer.testing import CliRunner

from deployments.registry_cli import registry
from flows.continual_sequence import continual_sequence
from flows.storage import sequence_store
from gift_core.errors import Refused
from gift_core.gate import GatePolicy
from tasks.manifests import ModelManifest
from tasks.report import load_sequence_manifest, report_address
from tasks.sequence import SequenceSettings
from tasks.store.heads import head_of
from tasks.store.outputs import find_output
from tasks.store.verify import verify_store
from tests.worlds import tiny_sequence, write_squares

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("prefect_api")]
GATE = GatePolicy(max_drop_per_task=10, max_panel_drop=10, min_gain=-10)


@pytest.fixture
def sequence(tmp_path: Path) -> SequenceSettings:
    """Two colours, then three: learnt with the miniature's learning rate, nothing is forgotten."""
    write_squares(tmp_path / "warm", ("red", "green"), 18, 42)
    write_squares(tmp_path / "cold", ("red", "green", "blue"), 18, 42)
    steps = {"num_steps": 12, "warmup_steps": 2, "batch_size": 8, "learning_rate": 1e-3}
    tiny = tiny_sequence(tmp_path, str(tmp_path / "store"), name="field", finetune=steps)
    words = ("red square", "green square", "blue square")
    warm, cold = tiny.tasks
    cold = cold.model_copy(update={"class_names": words})
    return tiny.model_copy(update={"tasks": (warm, cold), "gate": GATE})


def gift(*arguments: str) -> str:
    done = CliRunner().invoke(registry, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def shown(key: str) -> list[str]:
    """What the server has under a key, oldest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )
    return [str(each.data) for each in sorted(found, key=lambda each: str(each.created))]


def test_a_destructive_run_is_refused_overridden_and_rolled_back(
    sequence: SequenceSettings,
) -> None:
    continual_sequence(sequence=sequence)
    store = sequence_store(sequence.store)
    good = head_of(store, "field")
    assert good is not None
    assert (good.number, good.kind, good.reason) == (2, "promoted", "passed the gate")
    first, *_, last = shown(
        "sequence-field"
    )  # after warm; after cold and once more with the report
    assert "**1 of 2 tasks learnt.** The head is entry 1, promoted." in first
    assert "**2 of 2 tasks learnt.** The head is entry 2, promoted." in last
    assert f"report: `{report_address(store, 'field')}`" in last
    assert "### Verdict on the model after cold: let pass" in last

    warm, cold = sequence.tasks
    rate = 100 * sequence.finetune.learning_rate
    destructive = sequence.model_copy(
        update={"tasks": (warm, cold.model_copy(update={"learning_rate": rate}))}
    )
    with pytest.raises(Refused, match="the gate refused the model after cold: warm fell from"):
        continual_sequence(sequence=destructive)
    assert head_of(store, "field") == good
    stopped = load_sequence_manifest(store, "field")
    rows = [(failure.rule, failure.task) for failure in stopped.refused]
    assert rows == [
        ("max_drop_per_task", "warm"),
        ("max_panel_drop", "panel"),
        ("min_gain", "cold"),
    ]
    page = shown("sequence-field")[-1]
    assert "**The gate refused the model after cold**" in page
    assert page.count("| broken |") == len(rows)
    assert "broken" in shown("verdict-field-cold")[-1]
    bad = stopped.models[-1]
    assert bad != good.model.output
    assert find_output(store, ModelManifest, *bad.split("/")), "what was refused is kept"
    page = Path(report_address(store, "field")).read_text()
    for failure in stopped.refused:
        cells = rf">{failure.rule}</th><td>{failure.task}</td>.*>{failure.after:.1f}<"
        assert re.search(cells, page), cells

    passed = continual_sequence(sequence=destructive, override="to see it in the field")
    assert (passed.num_computed, passed.manifest.refused) == (1, ())
    place = ("--store", store.url)
    assert "field: 4 rolled-back to 2, cold" in gift(
        "rollback", "field", "--reason", "worse in the field", *place
    )
    restored = head_of(store, "field")
    assert restored is not None
    assert (restored.model, restored.lineage) == (good.model, good.lineage)
    log = gift("log", "field", *place)
    kinds = [line.split(",")[0] for line in log.splitlines() if line[0] != " "]
    assert kinds == ["4 rolled-back to 2", "3 overridden", "2 promoted", "1 promoted"]
    assert ": worse in the field" in log
    assert ": to see it in the field" in log
    assert log.count("against the gate: ") == len(rows), "the override tells what it overrode"
    assert verify_store(store).damages == ()
