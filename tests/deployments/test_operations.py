"""docs/operations.md, walked through command by command against services started by hand."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.seaweed import running_seaweed
from tests.deployments.walk import SERVICE, Block, Shell, blocks
from tests.faults.sequences import one_task
from tests.postgres import program, running_postgres
from tests.prefect_server import free_port
from tests.worlds import ROOT

pytestmark = pytest.mark.timeout(1800)
NEED_TASKS = ("New tasks arrive", "Upkeep")
"""Parts whose every command is run by test_new_tasks.py, where there is an inbox to look into."""
PAGE = re.sub(
    rf"^## ({'|'.join(NEED_TASKS)})$.*?(?=^## )",
    "",
    (ROOT / "docs" / "operations.md").read_text(),
    flags=re.MULTILINE | re.DOTALL,
)
BLOCKS = tuple(blocks(PAGE))
ELSEWHERE = [block for block in BLOCKS if block.kind == "sh elsewhere"]
RUN = "gift/continual-sequence"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Walk:
    """The page's commands in a checkout of their own, its addresses and passwords made real."""

    def __init__(self, folder: Path, environment: dict[str, str], real: dict[str, str]) -> None:
        self._folder, self._real = folder, real
        self._shell = Shell(folder, environment)
        self._run: str | None = None

    def take(self, block: Block) -> None:
        """Do what a reader does with a block: run it, save it as the file it names, or read it."""
        if block.kind == "ini":
            name = block.text.split("\n", 1)[0].removeprefix("# ")
            (self._folder / name).write_text(self._made_real(block.text))
        if block.kind == "run":
            for command in block.commands():
                self._do(self._made_real(command))

    def end(self) -> None:
        self._shell.end()

    def finish(self) -> None:
        """Everything that was started is still there at the end."""
        alive, started = self._shell.num_alive()
        assert started >= 3
        assert alive == started

    def _do(self, command: str) -> None:
        if SERVICE.search(command):
            self._shell.start(command, self._is_up(command))
            return
        if re.search(r"\bID\b", command):
            command = re.sub(r"\bID\b", self._id(command), command)
        self._shell.run(command)

    def _is_up(self, command: str) -> Callable[[str], bool]:
        """Whether a service is up: a server answers, a worker says so."""
        if "worker start" in command:
            return lambda said: "started!" in said
        if "server start" in command:
            return lambda said: _answers(f"http://{self._real['127.0.0.1:4200']}/api/health")
        return lambda said: _answers(f"http://{self._real['127.0.0.1:8400']}/")

    def _made_real(self, text: str) -> str:
        for shown, real in self._real.items():
            text = text.replace(shown, real)
        return text

    def _id(self, command: str) -> str:
        """The id that a command wants: of a run under way, or, to try again, of one that ended."""
        if self._run is None:
            given = {"parameters": {"file": "products.yaml"}}
            deployment = self._api(f"/deployments/name/{RUN}")["id"]
            self._run = str(self._api(f"/deployments/{deployment}/create_flow_run", given)["id"])
        wanted = FINAL if "retry" in command else {"RUNNING"}
        deadline = time.monotonic() + 240
        while (state := self._api(f"/flow_runs/{self._run}")["state"]["type"]) not in wanted:
            assert time.monotonic() < deadline, f"{command}: the run stays {state}"
            time.sleep(0.3)
        return self._run

    def _api(self, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        word = b64encode(f"gift:{self._real['PASSWORD']}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {word}"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self._real['127.0.0.1:4200']}/api{path}"
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def checkout(folder: Path) -> Path:
    """The checkout under another name, so that nothing is written into the real one."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
def walk(tiny_data: Path, tmp_path: Path) -> Iterator[Walk]:
    with ExitStack() as stack:
        database = stack.enter_context(running_postgres())
        storage = stack.enter_context(running_seaweed(tmp_path / "seaweed", bucket="models"))
        port, page = free_port(), free_port()
        folder = checkout(tmp_path / "gift")
        sequence = one_task(tiny_data, "s3://models/gift").model_dump(mode="json")
        (folder / "products.yaml").write_text(yaml.safe_dump(sequence))
        real = {
            "PASSWORD": secrets.token_hex(12),
            "=KEY": f"={storage.key}",
            "=SECRET": f"={storage.secret}",
            "https://s3.example.com": storage.url,
            "127.0.0.1:5432": f"127.0.0.1:{database.port}",
            "127.0.0.1:4200": f"127.0.0.1:{port}",
            "--port 4200": f"--port {port}",
            "127.0.0.1:8400": f"127.0.0.1:{page}",
            "gift dashboard": f"gift dashboard --port {page}",
        }
        path = [str(Path(sys.executable).parent), str(Path(program("psql")).parent)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "AWS_", "GIFT_"))
        }
        environment |= database.environment | {
            "PATH": os.pathsep.join([*path, os.environ["PATH"]]),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
        }
        walker = Walk(folder, environment, real)
        stack.callback(walker.end)
        yield walker


def test_every_command_of_the_page_does_what_it_says(walk: Walk) -> None:
    assert sum(len(block.commands()) for block in BLOCKS if block.kind == "run") >= 15
    for block in BLOCKS:
        walk.take(block)
    walk.finish()


@pytest.mark.parametrize("block", ELSEWHERE, ids=lambda block: block.commands()[0][:30])
def test_commands_that_need_docker_or_kubernetes_name_what_is_there(block: Block) -> None:
    """They are shell, their files exist, and kubectl, where there is one, knows them."""
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for command in block.commands():
        words = command.split()
        assert re.match(r"(docker|kubectl|cp|prefect|GIFT_HOME=/opt/gift) ", command), command
        for word in words:
            if word.startswith("deployments/") and not word.endswith(".env"):
                assert (ROOT / word).is_file(), command
        if words[0] == "kubectl" and shutil.which("kubectl"):
            shown = subprocess.run([*words[:2], "--help"], capture_output=True, text=True)
            assert all(w.split("=")[0] in shown.stdout for w in words if w == "--filename")


def test_blocks_are_told_apart() -> None:
    page = (
        "Text:\n\n    one \\\n        more   # why\n    two\n\n- a list\n  goes on\n\n"
        "```sh elsewhere\nthree\n```\n\n```yaml\n    deep: yes\n```\n\n    four\n"
    )
    assert [(block.kind, block.commands()) for block in blocks(page)] == [
        ("run", ["one more", "two"]),
        ("sh elsewhere", ["three"]),
        ("yaml", ["deep: yes"]),
        ("run", ["four"]),
    ]
