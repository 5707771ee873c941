"""A page of commands, walked through in one shell, as a reader would."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

SERVICE = re.compile(r"\b(prefect (server|worker) start|gift dashboard)\b")
"""Commands that do not end: the walk starts them beside itself, as a reader in another window."""
DONE = "the-command-ended-with"
FENCED = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^\n|\A)((?:^ {4}.+\n)(?:^ {4}.+\n|^\n(?= {4}))*)", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page: its kind (`run`, or what stands behind the fence) and its text."""

    kind: str
    text: str

    def commands(self) -> list[str]:
        """The commands, without comments; one that goes on behind a backslash is one."""
        joined = re.sub(r"\s*\\\n\s*", " ", self.text)
        bare = (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in bare if line]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page in order."""
    found = [
        (match.start(), Block(match["info"], match["body"])) for match in FENCED.finditer(page)
    ]
    hidden = FENCED.sub(lambda match: re.sub(r"[^\n]", ".", match[0]), page)
    for match in INDENTED.finditer(hidden):
        text = "\n".join(line[4:] for line in match[1].splitlines())
        found.append((match.start(1), Block("run", text)))
    for _, block in sorted(found, key=lambda pair: pair[0]):
        yield block


class Shell:
    """One bash for the whole walk, so that what is exported stays; services run beside it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._said: Queue[str] = Queue()
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._services: list[tuple[str, Path]] = []

    def run(self, command: str, seconds: float = 300) -> str:
        """Run a command to its end; what it said, AssertionError when it failed."""
        self._tell(f"{{ {command}\n}} < /dev/null\necho {DONE} $?\n")
        said: list[str] = []
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"{command}: no end in {seconds} s\n{''.join(said)}") from None
            if line.startswith(DONE):
                assert line.split()[1] == "0", f"{command}\n{''.join(said)[-4000:]}"
                return "".join(said)
            said.append(line)

    def start(self, command: str, is_up: Callable[[str], bool], seconds: float = 180) -> None:
        """Start a service and wait until it is up, judged by what it has said."""
        log = self._folder / f"service-{len(self._services)}.log"
        self._tell(f"({command.removesuffix('&')}) > {log.name} 2>&1 &\n")
        self._services.append((command, log))
        deadline = time.monotonic() + seconds
        while not (log.exists() and is_up(log.read_text())):
            words = log.read_text()[-3000:] if log.exists() else ""
            assert time.monotonic() < deadline, f"{command} is not up:\n{words}"
            time.sleep(0.3)

    def num_alive(self) -> tuple[int, int]:
        """How many services are alive, and how many were started."""
        alive = self.run("jobs -r | wc -l").split()[-1]
        return int(alive), len(self._services)

    def end(self) -> None:
        """End the shell and every service with it; workers end their runs."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(timeout=30)
        deadline = time.monotonic() + 30
        with suppress(ProcessLookupError):  # nobody is left of the group
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                time.sleep(0.2)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._listener.join(timeout=30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line)
