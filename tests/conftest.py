"""What every test may use: a Prefect of our own, small data, no way to the network by accident."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

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
from tests.worlds import write_tiny_data


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server for flows; tests of plain functions do without.

    Without heartbeats, as where Prefect is embedded: they take a second of each stage.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
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
