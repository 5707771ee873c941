"""The command in this process, and stores for it to work on."""

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import cli
from deployments.seaweed import Endpoint
from tasks.store.address import open_store
from tasks.store.objects import FolderStore, ObjectStore
from tests.faults.sequences import manifests, one_task
from tests.house import House, running_house

Outcome = tuple[int, str, str]
Gift = Callable[..., Outcome]


@pytest.fixture
def gift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gift:
    """The command as `main` runs it: exit code, standard output, standard error."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["gift", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return int(str(ended.value.code or 0)), written.out, written.err

    return run


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    endpoint: Endpoint = request.getfixturevalue("endpoint")
    return open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """PostgreSQL, Prefect with a password, SeaweedFS; pools, deployments, automations; workers."""
    with running_house(tmp_path_factory.mktemp("house")) as services:
        services.put_up()
        with services.workers():
            yield services


@pytest.fixture(scope="session")
def learnt(house: House, tiny_data: Path) -> dict[str, str]:
    """The house's first run, on both pools, undisturbed: its manifests in the store `calm`."""
    sequence = one_task(tiny_data, house.store("calm"))
    on_pools = sequence.execution.model_copy(update={"stages": "pools"})
    house.learn(sequence.model_copy(update={"execution": on_pools}))
    with house.endpoint.environment():
        return manifests(open_store(house.store("calm")))
