"""The page over made-up stores, served on 127.0.0.1 as `gift dashboard` serves it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from deployments.dashboard.app import dashboard
from deployments.dashboard.serving import bound
from gift_core.gate import Failure, Verdict
from tasks.report import report
from tasks.store.inventory import candidate_of, take_inventory
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.registry import promote, rollback
from tests.deployments.made_up_stores import reported
from tests.tasks.conftest import MadeUpRun, made_up_run

BROKEN_RULE = Failure(rule="max_drop_per_task", task="digits", before=95.0, after=81.5, allowed=3)


@dataclass(frozen=True)
class Answer:
    """What a GET brought."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A page that is served."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", host: str = "127.0.0.1") -> Answer:
        """Ask for exactly this path: nothing between here and the server tidies it up."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, headers={"Host": host})
            answer = line.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())
        finally:
            line.close()


@contextmanager
def served(store: ObjectStore) -> Iterator[Site]:
    with bound("127.0.0.1", 0) as listener:
        config = uvicorn.Config(dashboard(store), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Site(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


@dataclass(frozen=True)
class Shown:
    """A store with four sequences, each another way to stand, and the page over it."""

    store: ObjectStore
    site: Site
    little: MadeUpRun
    plain: MadeUpRun


def fill(store: ObjectStore, reason: str = "worse in the field") -> tuple[MadeUpRun, MadeUpRun]:
    """Little: rolled back. Plain: overridden. Watched: refused, no head. Going: no report yet."""
    little = reported(store)
    rollback(store, "little", reason=reason, actor="anna@lab")
    tasks = ("digits", "photos")
    plain = made_up_run(store, "plain", tasks, "finetune")
    report.fn(*plain.arguments)
    refused = Verdict(promoted=False, failures=(BROKEN_RULE,))
    candidate = candidate_of(take_inventory(store), f"finetune/{plain.models[2].key}")
    promote(store, "plain", candidate, reason="to see it", actor="flow run 7", verdict=refused)
    watched = made_up_run(store, "watched", tasks, class_names=("cat", "dog"))
    report.fn(*watched.arguments, (BROKEN_RULE,))
    going = made_up_run(store, "going", tasks, class_names=("red", "blue"))
    candidate = candidate_of(take_inventory(store), f"finetune/{going.models[1].key}")
    promote(store, "going", candidate, reason="passed the gate", actor="flow run 8")
    return little, plain


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    store = FolderStore(tmp_path_factory.mktemp("shown") / "store")
    runs = fill(store)
    with served(store) as site:
        yield Shown(store, site, *runs)


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")
