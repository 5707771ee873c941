"""A real Prefect server and worker on 127.0.0.1, started and stopped by a test."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deployments.program import STOP_SECONDS, Program
from tests.worlds import ROOT

START_SECONDS = 180
WORKER_STOP_SECONDS = 5
"""A worker that had runs often waits after SIGTERM until it is killed; an idle one ends at once."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    stop_seconds: float = STOP_SECONDS,
) -> Iterator[Program]:
    """A program for as long as the block runs; the whole group is ended, whatever happens."""
    program = Program(command, environment, log)
    program.start(ROOT)
    try:
        yield program
    finally:
        program.stop(stop_seconds)


def await_healthy(url: str, log: Path) -> None:
    """Wait until the server answers; AssertionError with its log when it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no Prefect server at {url}:\n{log.read_text()[-3000:]}")


@dataclass(frozen=True)
class PrefectServer:
    """Where the server listens, and the environment that its clients run in."""

    port: int
    home: Path
    environment: dict[str, str]
    program: Program

    @property
    def url(self) -> str:
        """The address of the dashboard."""
        return f"http://127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Start it again after it was stopped or killed, on the same port, and wait for it."""
        self.program.start(ROOT)
        await_healthy(f"{self.url}/api", self.home / "server.log")

    def api(
        self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """Ask the server's API: POST where there is a body, GET where there is none.

        A busy SQLite makes the server answer 503 and do nothing; Prefect's own client asks again.
        """
        headers = {"Content-Type": "application/json"}
        if credentials := self.environment.get("PREFECT_API_AUTH_STRING"):
            headers["Authorization"] = "Basic " + b64encode(credentials.encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/api{path}"
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
        give_up = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > give_up:
                    raise
            time.sleep(1)

    def flow_runs(self) -> list[dict[str, Any]]:
        """Flow runs, at most 200, as they were to start: the future comes last."""
        wanted = {"limit": 200, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.api("/flow_runs/filter", wanted)
        return found

    def prefect(self, *arguments: str, seconds: int = 240) -> str:
        """Run the `prefect` command against the server; its output, AssertionError if it fails."""
        return self.python("-m", "prefect", *arguments, seconds=seconds)

    def python(self, *arguments: str, seconds: int = 240) -> str:
        """Run Python as a client of the server; its output, AssertionError if it fails."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"python {' '.join(arguments)}:\n{output[-4000:]}"
        return output

    @contextmanager
    def worker(self, pool: str, name: str = "worker", *options: str) -> Iterator[int]:
        """A process worker of a pool, its process id; what it says goes to NAME.log."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
        command += ["--name", name, *options]
        log = self.home / f"{name}.log"
        with running(command, self.environment, log, WORKER_STOP_SECONDS) as program:
            yield program.pid


@contextmanager
def running_server(
    home: Path,
    settings: Mapping[str, str] | None = None,
    credentials: Mapping[str, str] | None = None,
) -> Iterator[PrefectServer]:
    """A server whose whole state lies in `home`; nothing leaves this machine.

    `settings` are the server's alone (its database, its password); `credentials` are what its
    clients and workers have besides.
    """
    port = free_port()
    common = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # looks at night, or into an inbox
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # a worker looks for runs so often, not every 10 s
        "GIFT_HOME": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [
        *(sys.executable, "-m", "prefect", "server", "start", "--analytics-off"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with running(command, common | dict(settings or {}), log) as program:
        server = PrefectServer(port, home, common | dict(credentials or {}), program)
        await_healthy(f"{server.url}/api", log)
        yield server
