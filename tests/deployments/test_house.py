"""The house: PostgreSQL, a Prefect server with a password on it, SeaweedFS, two workers."""

import json
import urllib.error
import urllib.request

import pytest

from deployments.put_up import automations
from tasks.store.address import open_store
from tasks.store.heads import head_of
from tests.house import House
from tests.worlds import ROOT

pytestmark = pytest.mark.timeout(1800)


def test_a_sequence_on_both_pools_ends_as_a_head_in_object_storage(
    house: House, learnt: dict[str, str]
) -> None:
    """The cpu worker orders the work, the gpu worker does it."""
    runs = [run for run in house.server.flow_runs() if not run["auto_scheduled"]]
    taken = {run["work_pool_name"] for run in runs if run["state"]["type"] == "COMPLETED"}
    assert taken >= {"cpu", "gpu"}
    with house.endpoint.environment():
        head = head_of(open_store(house.store("calm")), "tiny")
    assert head is not None
    assert f"outputs/{head.model.output}/manifest.json" in learnt


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
