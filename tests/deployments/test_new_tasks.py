"""The service learns what arrives: a real server, a real worker, `prefect deploy --all`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.storage import sequence_store
from tasks.growth import models_of, tasks_of
from tasks.sequence import SequenceSettings, TaskSettings
from tasks.store.arrivals import Arrival, arrivals_of
from tasks.store.heads import head_of, history_of
from tasks.store.objects import ObjectStore
from tasks.store.registry import rollback
from tests.deployments.pool_world import make_pools
from tests.prefect_server import PrefectServer, running_server
from tests.worlds import ROOT, tiny_sequence, write_squares

pytestmark = pytest.mark.timeout(900)
SERVER = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true",
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
PATIENCE = 500.0
Json = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """A server that serves a sequence without tasks, and looks into an inbox every few seconds."""

    server: PrefectServer
    file: str
    inbox: Path
    store: ObjectStore

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        return self.server.api(path, body)

    def runs(self, name: str) -> list[Json]:
        """Flow runs whose name begins so, the first one in front.

        A run that waits for its time has a name by chance, which may begin with "tiny-" too.
        """
        found: list[Json] = self.post(
            "/flow_runs/filter", {"flow_runs": {"name": {"like_": f"{name}%"}}, "limit": 200}
        )
        asked_for = [run for run in found if not run["auto_scheduled"]]
        return sorted(asked_for, key=lambda run: str(run["start_time"]))

    def arrival(self, name: str) -> Arrival | None:
        tasks = arrivals_of(self.store, "tiny").tasks
        return next((each for each in tasks if each.name == name), None)

    def learnt(self, name: str) -> bool:
        arrival = self.arrival(name)
        return arrival is not None and arrival.state == "learnt"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the head has learnt."""
        head = head_of(self.store, "tiny")
        return tasks_of(models_of(self.store, head)) if head else ()

    def settled(self) -> None:
        """Wait until no run of a new task is under way."""
        states = {"SCHEDULED", "PENDING", "RUNNING"}
        until(lambda: not [r for r in self.runs("tiny-") if r["state"]["type"] in states])


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(1)


def dropped(inbox: Path, name: str, **words: object) -> TaskSettings:
    """A complete folder in an inbox: data first, task.yaml last; names of one length are equal."""
    write_squares(inbox / name, ("blue", "red"), 8 + len(name), 4)
    content = {"class_names": ["blue {} square", "red {{ 7 * 7 }} square"], **words}
    (inbox / name / "task.yaml").write_text(yaml.safe_dump(content))
    data = {"kind": "parquet", "path": str(inbox / name)}
    return TaskSettings.model_validate({"name": name, "data": data, **content})


def deployed(server: PrefectServer, folder: Path, file: str, inbox: Path) -> None:
    """The deployments of prefect.yaml with a file, an inbox and a schedule of the test."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    wanted = []
    for each in content["deployments"]:
        if each["name"] in {"new-task", "inbox", "verify", "gc"}:
            wanted.append(each)
        parameters = each.get("parameters", {})
        if "file" in parameters:
            parameters["file"] = file
        if "store" in parameters:
            parameters["store"] = {"url": str(folder / "store")}
        if each["name"] == "inbox":
            each["parameters"]["inbox"] = str(inbox)
            (schedule,) = each["schedules"]
            assert schedule == {"interval": 60, "slug": "every-minute", "active": True}
            schedule["interval"] = 20
    content["deployments"] = wanted
    written = folder / "prefect.yaml"
    written.write_text(yaml.safe_dump(content))
    make_pools(server)
    server.prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(written))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("arrivals")
    inbox = folder / "inbox"
    sequence = tiny_sequence(folder, str(folder / "store"), method="finetune", panel=[])
    sequence = SequenceSettings.model_validate({**dict(sequence), "tasks": ()})
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(sequence.model_dump(mode="json")))
    with running_server(folder / "prefect", SERVER) as server:
        deployed(server, folder, str(file), inbox)
        with server.worker("cpu"):
            yield Service(server, str(file), inbox, sequence_store(sequence.store))


def test_a_dropped_task_ends_as_a_promoted_model(service: Service) -> None:
    task = dropped(service.inbox, "birds", learning_rate=2e-4)
    until(lambda: service.learnt("birds"))
    assert service.tasks == ("birds",)
    service.settled()
    (run,) = service.runs("tiny-birds")
    assert run["state"]["type"] == "COMPLETED"
    assert run["parameters"]["task"] == task.model_dump(mode="json"), "typed, word for word"
    assert run["parameters"]["file"] == service.file


def test_the_same_task_twice_is_learnt_once(service: Service) -> None:
    dropped(service.inbox / "elsewhere", "birds", learning_rate=2e-4)
    (service.inbox / "elsewhere" / "birds").rename(service.inbox / "fowl")
    until(lambda: service.arrival("fowl"))
    duplicate = service.arrival("fowl")
    assert duplicate is not None
    assert (duplicate.state, duplicate.reason) == ("duplicate", "the same as arrival 1")
    assert service.tasks == ("birds",)
    assert service.runs("tiny-fowl") == []
    wanted, logs = "fowl is the same task as arrival 1, birds", {"limit": 200}

    def said() -> list[str]:
        found = service.post("/logs/filter", logs | {"sort": "TIMESTAMP_DESC"})
        return [log["message"] for log in found if wanted in log["message"]]

    until(said)  # a log is sent some seconds after its line
    assert len(said()) == 1


def test_a_broken_task_goes_to_quarantine_and_the_dashboard_says_why(service: Service) -> None:
    write_squares(service.inbox / "torn", ("blue", "red"), 4, 4)
    (service.inbox / "torn" / "test.parquet").write_bytes(b"not Parquet")
    (service.inbox / "torn" / "task.yaml").write_text("class_names: [blue square, red square]\n")
    reason = service.inbox / ".quarantine" / "torn" / "reason.txt"
    until(lambda: reason.is_file() and not (service.inbox / "torn").exists())
    assert "not a readable Parquet file" in reason.read_text()
    key = {"artifacts": {"key": {"any_": ["quarantined-tiny-torn"]}}}
    until(lambda: service.post("/artifacts/latest/filter", key))
    (artifact,) = service.post("/artifacts/latest/filter", key)
    assert "not a readable Parquet file" in artifact["data"]
    assert service.arrival("torn") is None
    ran = {"flow_runs": {"id": {"any_": [artifact["flow_run_id"]]}}}
    until(lambda: service.post("/flow_runs/filter", ran)[0]["state"]["type"] == "COMPLETED")


def test_three_at_once_are_learnt_one_by_one_in_order_of_arrival(service: Service) -> None:
    names = ("ship", "car", "trains")
    for name in names:
        dropped(service.inbox, name)
    until(lambda: all(service.learnt(name) for name in names))
    service.settled()
    assert service.tasks[-3:] == names
    learning = [run for run in service.runs("tiny") if run["name"] == "tiny"]
    for before, after in pairwise(learning):
        assert before["end_time"] <= after["start_time"], "two runs learnt at once"


def section(title: str) -> str:
    """A part of docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text()
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def commands(title: str) -> list[str]:
    """The commands that a part shows; one that ends in a pipe goes on in the next line."""
    text = re.sub(r"```.*?```", "", section(title), flags=re.DOTALL)
    lines = re.findall(r"^    (.*\|\n.*|.*)$", text, flags=re.MULTILINE)
    return [re.sub(r"^prefect ", f"{sys.executable} -m prefect ", line) for line in lines]


def run(command: str, service: Service) -> str:
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=service.inbox.parent,
        env=service.server.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_event_over_http_that_the_guide_shows_does_the_same_after_a_rollback(
    service: Service,
) -> None:
    rollback(service.store, "tiny", to=1, reason="the rest is worse", actor="test")
    elsewhere = service.inbox.parent / "data"
    dropped(elsewhere, "airplane")
    (shown,) = re.findall(r"```json\n(.*?)```", section("New tasks arrive"), flags=re.DOTALL)
    event = shown.replace("deployments/sequences/miniature.yaml", service.file)
    (service.inbox.parent / "arrived.json").write_text(
        event.replace("/data/planes", str(elsewhere / "airplane"))
    )
    send, catch_up = commands("New tasks arrive")
    run(send, service)
    until(lambda: service.learnt("planes"))
    assert service.tasks == ("birds", "planes")
    kinds = [entry.kind for entry in history_of(service.store, "tiny")]
    assert kinds[:2] == ["promoted", "rolled-back"]
    arrival = service.arrival("planes")
    assert arrival is not None
    assert arrival.settings["learning_rate"] == 5e-5
    service.settled()
    run(catch_up, service)
    assert service.tasks == ("birds", "planes"), "nothing was left to learn"


def test_the_upkeep_that_the_guide_shows(service: Service) -> None:
    for command in commands("Upkeep"):
        run(command, service)
    key = {"artifacts": {"key": {"any_": ["store-verified", "store-swept"]}}}
    said = [found["data"] for found in service.post("/artifacts/latest/filter", key)]
    assert any("all as they were stored" in each for each in said)
    assert any("that nothing needs" in each for each in said)
    assert service.tasks == ("birds", "planes")


KILLED = """
import os, signal, sys
import flows.inbox
flows.inbox._announce = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
flows.inbox.inbox(file=sys.argv[1], inbox=sys.argv[2])
"""


def test_a_look_that_was_killed_before_it_announced_is_made_up_for(service: Service) -> None:
    other = service.inbox.parent / "other-inbox"
    dropped(other, "unlucky")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, service.file, str(other)],
        cwd=ROOT,
        env=os.environ | service.server.environment,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    arrival = service.arrival("unlucky")
    assert arrival is not None
    assert (arrival.state, arrival.announced) == ("arrived", False)
    until(lambda: service.learnt("unlucky"))
    assert service.tasks[-1] == "unlucky"
