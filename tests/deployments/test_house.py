"""The house: PostgreSQL, a Prefect server with a password on it, SeaweedFS, two workers."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tasks.store.address import open_store
from tests.house import House, running_house
from tests.worlds import tiny_sequence

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def house(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that ran the tiny sequence once, through a worker, into object storage."""
    with running_house(tmp_path_factory.mktemp("house")) as services:
        services.put_up()
        file = services.folder / "tiny.yaml"
        sequence = tiny_sequence(tiny_data, services.store("tiny"))
        file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
        with services.workers():
            services.server.prefect(
                *("deployment", "run", "gift/continual-sequence", "--watch"),
                *("--param", f"file={json.dumps(str(file))}"),
                seconds=500,
            )
        yield services


def test_a_sequence_ends_as_a_head_in_object_storage(house: House) -> None:
    runs = house.server.flow_runs()
    assert len(runs) >= 12
    assert {run["state"]["type"] for run in runs} == {"COMPLETED"}
    with house.endpoint.environment():
        store = open_store(house.store("tiny"))
        assert json.loads(store.read_bytes("heads/tiny/head.json"))


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
        page.goto(f"{house.server.url}/runs")
        page.get_by_text("report-tiny").first.wait_for()
