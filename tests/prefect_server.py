"""A real Prefect server and worker on 127.0.0.1, started and stopped by a test."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.worlds import ROOT

START_SECONDS = 180


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """A process in a group of its own, its id; the whole group is ended, whatever happens."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, signum)
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    continue


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

    @property
    def url(self) -> str:
        """The address of the dashboard."""
        return f"http://127.0.0.1:{self.port}"

    def prefect(self, *arguments: str, seconds: int = 240) -> str:
        """Run the `prefect` command against the server; its output, AssertionError if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"prefect {' '.join(arguments)}:\n{output[-4000:]}"
        return output

    @contextmanager
    def worker(self, pool: str, name: str = "worker", *options: str) -> Iterator[int]:
        """A process worker of a pool, its process id; what it says goes to NAME.log."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
        command += ["--name", name, *options]
        with running(command, self.environment, self.home / f"{name}.log") as pid:
            yield pid


@contextmanager
def running_server(home: Path) -> Iterator[PrefectServer]:
    """A server whose whole state lies in `home`; nothing leaves this machine."""
    port = free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # a worker looks for runs so often, not every 10 s
        "GIFT_HOME": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [
        *(sys.executable, "-m", "prefect", "server", "start", "--analytics-off"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with ExitStack() as stack:
        stack.enter_context(running(command, environment, log))
        await_healthy(environment["PREFECT_API_URL"], log)
        yield PrefectServer(port, home, environment)
