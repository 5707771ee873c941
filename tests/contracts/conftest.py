"""Every kind of store, one after the other."""

import secrets
from pathlib import Path

import pytest

from deployments.seaweed import Endpoint
from tasks.store.address import open_store
from tasks.store.objects import ObjectStore


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    endpoint: Endpoint = request.getfixturevalue("endpoint")
    return open_store(f"s3://{endpoint.bucket}/{secrets.token_hex(4)}")
