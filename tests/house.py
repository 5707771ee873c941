"""The pipeline as a team runs it, in small and on 127.0.0.1: the services of compose.yaml by hand.

PostgreSQL, a Prefect server with a password on it, SeaweedFS with keys, and process workers.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from deployments.put_up import pools
from deployments.seaweed import Endpoint, Seaweed
from tests.browser import open_page
from tests.postgres import Postgres, running_postgres
from tests.prefect_server import PrefectServer, running_server


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
        """Pools, deployments and automations, as compose.yaml puts them up; what it said."""
        return self.server.python("-m", "deployments.put_up")

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
        }
        credentials = {"PREFECT_API_AUTH_STRING": word} | seaweed.endpoint.variables
        server = stack.enter_context(running_server(folder / "prefect", settings, credentials))
        yield House(folder, database, server, seaweed)
