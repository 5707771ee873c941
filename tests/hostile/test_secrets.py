"""Secrets stay where they are, and nothing is pickled: looked for in all that a run leaves behind.

The tiny sequence is run as a user runs it, on object storage, with the server's random secret key
once in a Prefect block and once in the environment, and with Prefect's results switched on.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deployments.seaweed import Endpoint
from gift_core.errors import GiftError, SettingsError
from tasks.sequence import StoreSettings, load_sequence
from tasks.store.address import open_store
from tests.worlds import ROOT, tiny_sequence

pytestmark = pytest.mark.timeout(400)
BLOCK_AND_RUN = """
import sys
from deployments.embedded import set_embedded_defaults
set_embedded_defaults()
from prefect.filesystems import RemoteFileSystem
settings = dict(zip(("endpoint_url", "key", "secret"), sys.stdin.read().split()))
RemoteFileSystem(basepath="s3://gift", settings=settings).save("objects", _sync=True)
from deployments.cli import main
main()
"""


@dataclass(frozen=True)
class Runs:
    """Two runs that are over: what they printed, and Prefect's home."""

    outputs: tuple[str, str]
    home: Path


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it is, and as base64 has it wherever it begins."""
    yield secret.encode()
    for shift in range(3):
        yield base64.b64encode(b"\0" * shift + secret.encode())[4:-4]


def run(code: list[str], home: Path, told: str, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    settings = {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(home),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    done = subprocess.run(
        [sys.executable, *code],
        cwd=home,
        env=clean | settings | environment | {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"},
        input=told,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, endpoint: Endpoint) -> Runs:
    home = tmp_path_factory.mktemp("secrets")
    url = f"s3://{endpoint.bucket}/secrets"
    content = tiny_sequence(tiny_data, url).model_dump(mode="json")
    content |= {"tasks": content["tasks"][:1], "store": {"url": url, "block": "objects"}}
    file = home / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    told = f"{endpoint.url} {endpoint.key} {endpoint.secret}"
    first = run(["-c", BLOCK_AND_RUN, "run", str(file)], home, told)
    file.write_text(yaml.safe_dump(content | {"store": {"url": url}}))
    variables = {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": endpoint.key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret,
    }
    second = run(["-m", "deployments.cli", "run", str(file)], home, "", **variables)
    return Runs((first, second), home)


def test_the_secret_is_nowhere(runs: Runs, endpoint: Endpoint) -> None:
    assert "0 found in the store" in runs.outputs[0]
    assert "nothing to recompute" in runs.outputs[1]
    store = open_store(f"s3://{endpoint.bucket}/secrets")
    kept = {path: store.read_bytes(path) for path in store.list("")}
    kept |= {str(path): path.read_bytes() for path in runs.home.rglob("*") if path.is_file()}
    kept |= {f"output {n}": text.encode() for n, text in enumerate(runs.outputs)}
    assert any(path.endswith("report.html") for path in kept)
    databases = [path for path in kept if path.endswith("prefect.db")]
    assert databases
    assert any(b"sequence-report-tiny" in kept[path] for path in databases), "artifacts are in it"
    for secret in spellings(endpoint.secret):
        assert [path for path, content in kept.items() if secret in content] == []


def test_nothing_is_a_pickle(runs: Runs, endpoint: Endpoint) -> None:
    """Neither bare, nor in base64 inside of the JSON that Prefect keeps results in."""
    store = open_store(f"s3://{endpoint.bucket}/secrets")
    kept = {path: store.read_bytes(path) for path in store.list("")}
    kept |= {str(path): path.read_bytes() for path in runs.home.rglob("*") if path.is_file()}
    for path, content in kept.items():
        assert content[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), path
        assert b'"gASV' not in content, path
        assert b"cloudpickle" not in content, path


SECRET = "hunter2secret"
REFUSED_ADDRESSES = [
    f"s3://user:{SECRET}@bucket/prefix",
    f"https://user:{SECRET}@host/bucket",
    f"file://user:{SECRET}@host/folder",
    f"s3://{SECRET}@bucket",
]


@pytest.mark.parametrize("url", REFUSED_ADDRESSES)
def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="no user or password") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
    content = tiny_sequence(tmp_path, "store").model_dump(mode="json") | {"store": {"url": url}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=r"store\.url: .*no user or password") as caught:
        load_sequence(tmp_path / "tiny.yaml")
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="no user or password"):
        StoreSettings(url=url)


def test_a_password_in_a_blocks_endpoint_is_refused_and_not_repeated() -> None:
    options = {"endpoint_url": f"http://user:{SECRET}@127.0.0.1:9"}
    with pytest.raises(SettingsError, match="no user or password") as caught:
        open_store("s3://bucket", options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["right", "wrong"])
def test_a_refusal_of_the_server_does_not_repeat_the_secret(endpoint: Endpoint, key: str) -> None:
    options = {"key": endpoint.key if key == "right" else "AKIAWRONG", "secret": SECRET}
    store = open_store(f"s3://{endpoint.bucket}/x", options | {"endpoint_url": endpoint.url})
    with pytest.raises(GiftError, match="access refused") as caught:
        store.check()
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(SECRET in f"{error} {error!r}" for error in chain)
    assert SECRET not in repr(store)


def test_a_password_in_the_endpoint_of_the_environment_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(GiftError) as caught:
        open_store("s3://bucket/x").check()
    assert SECRET not in str(caught.value)
