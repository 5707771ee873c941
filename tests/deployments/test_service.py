"""The service as a whole: a folder is dropped into the inbox, and a model is promoted.

PostgreSQL with a password, SeaweedFS, two process workers, and nobody who types a command.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.manifests import ModelManifest
from tasks.store.address import open_store
from tasks.store.heads import head_of
from tasks.store.outputs import find_output
from tests.browser import screenshot
from tests.house import House
from tests.worlds import tiny_sequence, write_squares

pytestmark = pytest.mark.timeout(1800)
STAGES = ("synthesize-kites", "finetune-kites", "estimate-fisher-kites", "evaluate-after-kites")


@dataclass(frozen=True)
class Learnt:
    """What the service made of the folder; `shots` is where the test keeps its screenshots."""

    house: House
    store: str
    runs: dict[str, dict[str, Any]]
    shots: Path


@pytest.fixture(scope="module")
def dropped(house: House, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A sequence without tasks, an inbox, and after a while a folder in it."""
    folder, store = tmp_path_factory.mktemp("service"), house.store("inbox")
    content = tiny_sequence(folder, store, name="field", panel=[]).model_dump(mode="json")
    content["tasks"] = []
    content["execution"]["stages"] = "pools"
    file, inbox = folder / "field.yaml", folder / "inbox"
    file.write_text(yaml.safe_dump(content))
    house.look_into(inbox, file, 15)
    write_squares(inbox / "kites", ("red", "blue"), 8, 6)
    words = {"class_names": ["red square", "blue square"]}
    (inbox / "kites" / "task.yaml").write_text(yaml.safe_dump(words))
    with house.endpoint.environment():
        house.wait_until(lambda: head_of(open_store(store), "field") is not None)
        house.wait_until(lambda: _of_task(house).get("state", {}).get("type") == "COMPLETED")
    return Learnt(house, store, {run["name"]: run for run in house.server.flow_runs()}, folder)


def _of_task(house: House) -> dict[str, Any]:
    runs = {run["name"]: run for run in house.server.flow_runs()}
    return runs.get("field-kites", {})


def test_a_dropped_folder_ends_as_a_promoted_model(dropped: Learnt) -> None:
    with dropped.house.endpoint.environment():
        store = open_store(dropped.store)
        head = head_of(store, "field")
        assert head is not None
        stage, key = head.model.output.split("/")
        model = find_output(store, ModelManifest, stage, key)
    assert head.kind == "promoted"
    assert model is not None
    assert model.task == "kites"
    assert {dropped.runs[name]["state"]["type"] for name in STAGES} == {"COMPLETED"}
    assert {dropped.runs[name]["work_pool_name"] for name in STAGES} == {"gpu"}
    assert dropped.runs["field-kites"]["work_pool_name"] == "cpu"


def test_the_dashboard_shows_the_run_with_its_stages(dropped: Learnt) -> None:
    url, run = dropped.house.server.url, dropped.runs["field-kites"]
    with dropped.house.page() as page:
        page.goto(f"{url}/runs")
        page.get_by_text("field-kites").first.wait_for()
        screenshot(page, dropped.shots / "runs.png")
        page.goto(f"{url}/runs/flow-run/{run['id']}")
        page.get_by_text("Completed").first.wait_for()
        screenshot(page, dropped.shots / "run.png")


def test_the_dashboard_shows_the_sequence(dropped: Learnt) -> None:
    server = dropped.house.server
    (artifact,) = server.api(
        "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["sequence-field"]}}}
    )
    assert "kites" in json.dumps(artifact["data"])
    with dropped.house.page() as page:
        page.goto(f"{server.url}/artifacts/artifact/{artifact['latest_id']}")
        page.get_by_text("kites").first.wait_for()
        page.wait_for_function(
            "() => [...document.images].some(i => i.complete && i.naturalWidth > 1)"
        )
        screenshot(page, dropped.shots / "sequence.png")
