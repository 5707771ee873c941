"""What every test may use: a Prefect of our own, small data, no way to the network by accident."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import pytest

os.environ.update(
    PREFECT_HOME=mkdtemp(prefix="gift-test-prefect-"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW="ignore",
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    MPLBACKEND="agg",
)
os.environ.pop("PREFECT_API_URL", None)

from deployments.seaweed import Endpoint, running_seaweed
from tasks.store.objects import FolderStore
from tests.faults.sequences import Undisturbed, manifests, one_task
from tests.worlds import write_tiny_data


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server for flows; tests of plain functions do without.

    As where Prefect is embedded: without heartbeats, which take a second of each stage, and without
    turns, since this server never takes back the turn of a run that was too busy to renew it.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        patch("flows.turns._limited_to_one", return_value=False),
    ):
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the tiny sequence."""
    return write_tiny_data(tmp_path_factory.mktemp("tiny-data"))


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A real SeaweedFS server for the session, its keys in the usual AWS variables."""
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server, server.environment():
        yield server


@pytest.fixture(scope="session")
def undisturbed(
    prefect_api: None, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    from flows.continual_sequence import continual_sequence

    store = FolderStore(tmp_path_factory.mktemp("undisturbed") / "store")
    sequence = one_task(tiny_data, store.url)
    continual_sequence(sequence=sequence)
    return Undisturbed(sequence, store, manifests(store))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure when it happens: a run that is broken off later would take it along."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(
            f"\n{report.nodeid} failed in {report.when}:\n{report.longreprtext[-3000:]}", flush=True
        )


SLOWEST = (
    "test_pools.py",
    "test_house.py",
    "test_new_tasks.py",
    "test_operations.py",
    "test_kill_sweep.py",
    "test_sqlite.py",
    "test_full_disk.py",
    "test_secrets.py",
)
"""Files that take minutes. They begin first, so that two workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first; Makefile has xdist keep the order."""
    order = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
