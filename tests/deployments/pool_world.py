"""A Prefect server with the product's deployments and automations, workers that may be killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from deployments.put_up import automations, pools
from tasks.sequence import SequenceSettings
from tests.prefect_server import PrefectServer, running_server
from tests.worlds import tiny_sequence

Run = dict[str, Any]


def one_task(data: Path, store: Path, **finetune: object) -> SequenceSettings:
    """The first task of the tiny sequence, its pairs in three shards; `finetune` changes those."""
    sequence = tiny_sequence(data, str(store), panel=[])
    synthesis = sequence.synthesis.model_copy(update={"pairs_per_shard": 2})
    changed = {"tasks": sequence.tasks[:1], "synthesis": synthesis}
    if finetune:
        settings = {**dict(sequence.finetune), "collapse": {"share": 0.0}, **finetune}
        changed |= {"finetune": type(sequence.finetune).model_validate(settings)}
    return sequence.model_copy(update=changed)


def executed(sequence: SequenceSettings, **execution: object) -> SequenceSettings:
    """The same sequence, executed otherwise."""
    settings = sequence.execution.model_copy(update=execution)
    return sequence.model_copy(update={"execution": settings})


@dataclass
class PoolServer:
    """The server, and the workers by name."""

    server: PrefectServer
    folder: Path
    _stack: ExitStack
    workers: dict[str, int] = field(default_factory=dict)

    def start_worker(self, pool: str, name: str) -> None:
        """A worker that takes one run at a time, as a GPU's does."""
        worker = self.server.worker(pool, name, "--limit", "1")
        self.workers[name] = self._stack.enter_context(worker)

    def kill_with_runs(self, name: str) -> None:
        """SIGKILL a worker and its flow processes, as when their machine is lost."""
        pid = self.workers.pop(name)
        for process in [psutil.Process(pid), *descendants([pid])]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def log(self, name: str) -> str:
        """What a worker and its runs said."""
        return (self.server.home / f"{name}.log").read_text()

    def took(self, name: str, run: Run) -> bool:
        """Whether a worker took a run: another one may have tried to."""
        return f"Flow run '{run['name']}' submitted to infrastructure" in self.log(name)

    def holder(self, run: Run) -> str:
        """The worker in whose process a run is under way."""
        (found,) = [
            name
            for name, pid in self.workers.items()
            if any(_runs(process, run) for process in descendants([pid]))
        ]
        return found

    def runs(self, **wanted: object) -> list[Run]:
        """Flow runs in the order in which they were made."""
        asked = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        found: list[Run] = self.server.api("/flow_runs/filter", asked)
        return found

    def named(self, name: str) -> list[Run]:
        """Runs with this name, the first first."""
        return self.runs(name={"any_": [name]})

    def children(self, run: Run) -> list[Run]:
        """The runs that a run sent to workers."""
        found = self.runs(parent_flow_run_id={"any_": [run["id"]]})
        return [child for child in found if child["deployment_id"]]

    def logs(self, run: Run) -> list[str]:
        """A run's own log, as the dashboard shows it."""
        asked = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
        return [line["message"] for line in self.server.api("/logs/filter", asked)]

    def begin(self, sequence: SequenceSettings) -> Run:
        """Run a sequence through its deployment; the run, which has only been made yet."""
        file = self.folder / f"{sequence.name}.yaml"
        file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
        deployment = self.server.api("/deployments/name/gift/continual-sequence")["id"]
        wanted = {"name": file.stem, "parameters": {"file": str(file)}}
        begun: Run = self.server.api(f"/deployments/{deployment}/create_flow_run", wanted)
        return begun

    def await_state(self, run: Run, *states: str, seconds: float = 400) -> Run:
        """Wait until a run is in one of these states; AssertionError with what is known if not."""

        def now() -> Run:
            return self.runs(id={"any_": [run["id"]]})[0]

        try:
            await_true(lambda: now()["state"]["type"] in states, seconds, pause=1.0)
        except AssertionError:
            told = [(each["name"], each["state"]["type"]) for each in self.runs()]
            raise AssertionError(f"{run['name']} is {now()['state']}; {told}") from None
        return now()


def await_true(true: Callable[[], object], seconds: float = 120, pause: float = 0.2) -> None:
    """Look every `pause` seconds until it is true; AssertionError when it is not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(pause)


def descendants(pids: list[int]) -> list[psutil.Process]:
    """All processes below these, however deep and in whatever session."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that nobody has waited for yet does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _runs(process: psutil.Process, run: Run) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.environ().get("PREFECT__FLOW_RUN_ID") == run["id"]
    return False


def make_pools(server: PrefectServer) -> None:
    """The work pools, as `prefect work-pool create` makes them, without a process for each."""
    template = ProcessWorker.get_default_base_job_template()
    for pool in pools():
        wanted = {"name": pool, "type": "process", "base_job_template": template}
        server.api("/work_pools/", wanted)


def put_up(server: PrefectServer, lost_seconds: int) -> None:
    """What `deployments.put_up` makes, with one process in place of four."""
    make_pools(server)
    for automation in automations():
        content = automation.model_dump(mode="json")
        if automation.name == "gift-lost-heartbeat":
            assert content["trigger"]["within"] == 90
            content["trigger"]["within"] = lost_seconds
        server.api("/automations/", content)
    server.prefect("--no-prompt", "deploy", "--all")


def send_events_that_wait() -> None:
    """Let the next flow of this process look anew for its server.

    Prefect's thread that sends events keeps to the server that it met first, whatever the settings
    say later, and tries half a minute for each event once that server is gone.
    """
    EventsWorker.drain_all(timeout=60)


@contextmanager
def pool_server(folder: Path, lost_seconds: int) -> Iterator[PoolServer]:
    """README's service. Lost heartbeats count after `lost_seconds` in place of 90."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder / "prefect"))
        address = server.environment["PREFECT_API_URL"]
        stack.enter_context(temporary_settings({PREFECT_API_URL: address}))
        send_events_that_wait()
        stack.callback(send_events_that_wait)
        put_up(server, lost_seconds)
        yield PoolServer(server, folder, stack)
