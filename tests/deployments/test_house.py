"""The service as a whole: a folder is dropped into the inbox, and a model is promoted.

PostgreSQL, Prefect with a password, SeaweedFS, two process workers, and nobody who types a command.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.put_up import automations
from tasks.manifests import ModelManifest
from tasks.store.address import open_store
from tasks.store.heads import head_of
from tasks.store.outputs import find_output
from tests.browser import screenshot
from tests.faults.sequences import Undisturbed, manifests, moved
from tests.house import FINAL, House, running_house
from tests.worlds import ROOT, tiny_sequence, write_squares

pytestmark = pytest.mark.timeout(1800)
STAGES = (
    "synthesize-kites-0-1",
    "finetune-kites",
    "estimate-fisher-kites",
    "evaluate-after-kites",
)
OUTAGE_SECONDS = 20


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The services; pools, deployments and automations put up; a worker a pool."""
    with running_house(tmp_path_factory.mktemp("house")) as services:
        services.put_up()
        with services.workers():
            yield services


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
    house.wait_until(lambda: _of_task(house))
    house.look_no_more()  # each look costs a busy machine the start of a process
    house.wait_until(lambda: _of_task(house)["state"]["type"] in FINAL)
    assert _of_task(house)["state"]["type"] == "COMPLETED", house.logs()
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


def test_a_client_without_the_password_is_turned_away(house: House) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{house.server.url}/api/flow_runs/filter", b"{}", {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    assert refused.value.code == 401
    refused.value.close()


def test_the_dashboard_opens_with_the_password(house: House) -> None:
    with house.page() as page:
        page.goto(f"{house.server.url}/work-pools")
        page.get_by_text("gpu").first.wait_for()


def test_putting_up_again_makes_nothing_twice_and_wakes_nothing(house: House) -> None:
    """A team repeats it after each upgrade; what somebody paused stays paused."""
    wanted = {automation.name for automation in automations()}
    first, *_ = sorted(wanted)
    house.server.prefect("automation", "pause", first)
    said = house.put_up()
    found = house.server.api("/automations/filter", {})
    names = [automation["name"] for automation in found if automation["name"] in wanted]
    assert sorted(names) == sorted(wanted)
    assert [each["name"] for each in found if not each["enabled"]] == [first]
    house.server.prefect("automation", "resume", first)
    assert "pool cpu is there, of type process" in said
    assert f"automation {first} brought up to date" in said


def test_the_server_takes_the_template_of_a_pool_in_kubernetes(house: House) -> None:
    template = "deployments/kubernetes/gpu-job-template.json"
    create = ("work-pool", "create", "cluster", "--type", "kubernetes", "--base-job-template")
    house.server.prefect(*create, template)
    pool = house.server.api("/work_pools/cluster")
    assert pool["type"] == "kubernetes"
    assert pool["base_job_template"] == json.loads((ROOT / template).read_text())
    house.server.prefect("--no-prompt", "work-pool", "delete", "cluster")


def test_a_server_that_is_gone_for_20_seconds_costs_a_run_nothing(
    house: House, undisturbed: Undisturbed
) -> None:
    """Its answers are waited for, what it was to be told is told when it is back."""
    run = house.start(moved(undisturbed.sequence, house.store("outage")))
    house.wait_until(lambda: house.running("finetune-warm"), pause=0.2)
    house.server.program.kill()
    time.sleep(OUTAGE_SECONDS)
    house.server.restart()
    house.wait_until(lambda: house.state(run) in FINAL)
    assert house.state(run) == "COMPLETED", house.logs()
    with house.endpoint.environment():
        assert manifests(open_store(house.store("outage"))) == undisturbed.manifests
