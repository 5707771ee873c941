"""The pipeline as a team runs it, in small and on 127.0.0.1: the services of compose.yaml by hand.

PostgreSQL, a Prefect server with a password on it, SeaweedFS with keys, and process workers.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from deployments.put_up import pools
from deployments.seaweed import Endpoint, Seaweed
from tasks.sequence import SequenceSettings
from tests.browser import open_page
from tests.postgres import Postgres, running_postgres
from tests.prefect_server import PrefectServer, running_server

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SCHEDULED = ("gift/inbox", "gift/verify", "gift/gc")


@dataclass(frozen=True)
class House:
    """The services. `server.environment` is that of a client: the address, password and S3 keys."""

    folder: Path
    database: Postgres
    server: PrefectServer
    seaweed: Seaweed

    @property
    def endpoint(self) -> Endpoint:
        """Where the object storage listens, its bucket and its keys."""
        return self.seaweed.endpoint

    def store(self, name: str) -> str:
        """The address of a store of its own in the bucket."""
        return f"s3://{self.endpoint.bucket}/{name}"

    def put_up(self) -> str:
        """Pools, deployments and automations, as compose.yaml puts them up; what it said.

        Nobody looks into the checkout's own inbox: `look_into` says into which, and how often.
        """
        said = self.server.python("-m", "deployments.put_up", seconds=500)
        for name in SCHEDULED:
            self._change(name, {"paused": True})
        return said

    def look_into(self, inbox: Path, file: Path, seconds: int) -> None:
        """Have the service look for new tasks of a sequence file, every so many seconds."""
        schedule = {"slug": "every-minute", "active": True, "schedule": {"interval": seconds}}
        parameters = {"inbox": str(inbox), "file": str(file)}
        change = {"parameters": parameters, "schedules": [schedule], "paused": False}
        self._change("gift/inbox", change)

    def look_no_more(self) -> None:
        """Pause the looking."""
        self._change("gift/inbox", {"paused": True})

    def _change(self, deployment: str, change: dict[str, object]) -> None:
        found = self.server.api(f"/deployments/name/{deployment}")["id"]
        self.server.api(f"/deployments/{found}", change, "PATCH")

    @contextmanager
    def workers(self) -> Iterator[dict[str, int]]:
        """One worker a pool, its process id by the pool's name; that of `gpu` takes one run."""
        with ExitStack() as stack:
            started = {}
            for pool in pools():
                options = ("--limit", "1") if pool == "gpu" else ()
                worker = self.server.worker(pool, f"{pool}-worker", *options)
                started[pool] = stack.enter_context(worker)
            yield started

    def start(self, sequence: SequenceSettings) -> str:
        """Have a sequence learnt by the workers; the id of its run."""
        server, name = self.server, "gift/continual-sequence"
        deployment = server.api(f"/deployments/name/{name}")["id"]
        given = {"parameters": {"file": None, "sequence": sequence.model_dump(mode="json")}}
        run: str = server.api(f"/deployments/{deployment}/create_flow_run", given)["id"]
        return run

    def state(self, run: str) -> str:
        """The state of a run, such as RUNNING."""
        kind: str = self.server.api(f"/flow_runs/{run}")["state"]["type"]
        return kind

    def running(self, name: str) -> bool:
        """Whether a run of that name is under way."""
        return any(
            run["name"] == name and run["state"]["type"] == "RUNNING"
            for run in self.server.flow_runs()
        )

    def wait_until(
        self, happened: Callable[[], object], seconds: float = 800, pause: float = 1.0
    ) -> None:
        """Look every `pause` seconds; AssertionError with the workers' words if it never happens.

        Each look costs the server time, and so the run that is waited for.
        """
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(pause)

    def logs(self) -> str:
        """The last that each worker and its runs said."""
        return "\n".join(
            f"{pool}-worker:\n{(self.server.home / f'{pool}-worker.log').read_text()[-3000:]}"
            for pool in pools()
        )

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A page of the dashboard whose password has been typed; `page.goto(house.server.url)`."""
        word = self.server.environment["PREFECT_API_AUTH_STRING"]
        with open_page() as page:
            page.add_init_script(f"localStorage.setItem('prefect-password', btoa('{word}'))")
            yield page


@contextmanager
def running_house(folder: Path) -> Iterator[House]:
    """All services, empty: no pool, no deployment, no worker yet (`put_up`, `workers`)."""
    word = f"team:{secrets.token_hex(12)}"
    with ExitStack() as stack:
        database = stack.enter_context(running_postgres())
        seaweed = Seaweed(folder / "seaweed")
        stack.callback(seaweed.stop)
        seaweed.start()
        settings = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url,
            "PREFECT_SERVER_API_AUTH_STRING": word,
            "PREFECT_UI_API_URL": "/api",  # wherever the browser found the page
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true",
        }
        credentials = {"PREFECT_API_AUTH_STRING": word} | seaweed.endpoint.variables
        server = stack.enter_context(running_server(folder / "prefect", settings, credentials))
        yield House(folder, database, server, seaweed)
