"""A store behind a bad line, and patience short enough for a test."""

import secrets
from collections.abc import Iterator

import pytest

from deployments.seaweed import Endpoint
from tasks.store.s3 import S3Store
from tests.faults.proxy import Proxy, proxy_to


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
