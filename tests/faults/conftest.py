"""A store behind a bad line, and patience short enough for a test."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.seaweed import Endpoint
from tasks.sequence import SequenceSettings
from tasks.store.objects import FolderStore
from tasks.store.s3 import S3Store
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.sequences import manifests, one_task


@pytest.fixture
def proxy(endpoint: Endpoint) -> Iterator[Proxy]:
    with proxy_to(endpoint.url) as line:
        yield line


@pytest.fixture
def far(endpoint: Endpoint, proxy: Proxy) -> S3Store:
    """A store behind the proxy, with the product's own patience."""
    return S3Store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}", {"endpoint_url": proxy.url})


@pytest.fixture
def hasty(endpoint: Endpoint, proxy: Proxy) -> S3Store:
    """The same, given up after two tries of a second each."""
    limits = {"read_timeout": 1, "retries": {"total_max_attempts": 2, "mode": "standard"}}
    options = {"endpoint_url": proxy.url, "config_kwargs": limits}
    return S3Store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}", options)


@dataclass(frozen=True)
class Undisturbed:
    """A sequence that ran in a folder without any fault, and its manifests."""

    sequence: SequenceSettings
    store: FolderStore
    manifests: dict[str, str]


@pytest.fixture(scope="session")
def undisturbed(
    prefect_api: None, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    from flows.continual_sequence import continual_sequence

    store = FolderStore(tmp_path_factory.mktemp("undisturbed") / "store")
    sequence = one_task(tiny_data, store.url)
    continual_sequence(sequence=sequence)
    return Undisturbed(sequence, store, manifests(store))
