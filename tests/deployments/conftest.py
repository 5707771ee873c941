"""The command in this process, and stores for it to work on."""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import cli
from deployments.seaweed import Endpoint
from tasks.store.address import open_store
from tasks.store.objects import FolderStore, ObjectStore

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
