"""Ranks are real processes here: they are heard, they fail, they are stopped, none is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gift_core.errors import Diverged, GiftError, RankLost
from tasks import launch
from tasks.launch import ADVICE, run_ranks, write_event, write_failure
from tasks.rank_output import Tail

pytestmark = pytest.mark.timeout(120)
PROLOGUE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from tasks.launch import write_event
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
def note(name):
    (folder / f"{name}-{rank}").write_text(str(os.getpid()))
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.02)
"""
Ranks = Generator[dict[str, Any], None, None]


class World:
    """A folder, a module for the ranks, and the lines that they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "$run"  # the dollar is for torchrun's own macros
        self.folder.mkdir()
        self.lines: list[str] = []

    def run(self, body: str, *arguments: str, processes: int = 2) -> Ranks:
        """The generator over ranks that run this body."""
        (self.folder.parent / "rank_under_test.py").write_text(PROLOGUE + body)
        given = [str(self.folder), *arguments]
        return run_ranks("rank_under_test", given, processes, self.folder, self.lines.append)

    def wait_for(self, *names: str) -> None:
        """Wait until the ranks have made these files."""
        wait_until(lambda: all((self.folder / name).exists() for name in names))

    def pid(self, name: str) -> int:
        """The process that noted this name."""
        return int((self.folder / name).read_text())

    def left(self) -> list[int]:
        """Processes that were started for this folder and still run."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.folder).encode() in words and b"stage" not in words:
                found.append(int(path.parent.name))
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.syspath_prepend(tmp_path)  # the ranks import what the stage imports
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = World(tmp_path)
    yield made
    assert made.left() == []


def wait_until(true: Callable[[], bool], seconds: float = 60) -> float:
    """Seconds until it is true; AssertionError when it is not in time."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def failure_of(ranks: Ranks) -> GiftError:
    """What the ranks end with, in less than 30 seconds."""
    started = time.monotonic()
    with pytest.raises(GiftError) as caught:
        list(ranks)
    assert time.monotonic() - started < 30
    return caught.value


def test_events_and_output_come_while_the_ranks_work(world: World) -> None:
    body = """
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
print(*(os.environ[name] for name in names), sys.argv[2], "torch" in sys.modules)
print("to the other stream", file=sys.stderr)
if rank == 0:
    for number in range(200):
        write_event(folder, {"number": number, "note": "two\\nlines"})
    wait_for("go")
    write_event(folder, {"number": 200})
"""
    threads = max(1, (os.cpu_count() or 1) // 2)
    numbers = []
    for event in world.run(body, "${local_rank} $$"):
        numbers.append(event["number"])
        if event["number"] == 199:
            assert any(line.startswith("rank 0: 0 0 2") for line in world.lines)
            (world.folder / "go").touch()
    assert numbers == list(range(201))
    for rank in (0, 1):
        said = [line for line in world.lines if line.startswith(f"rank {rank}: ")]
        assert sorted(said) == [
            f"rank {rank}: {rank} {rank} 2 127.0.0.1 {threads} ${{local_rank}} $$ False",
            f"rank {rank}: to the other stream",
        ]
    assert len(world.lines) == 4


def test_what_is_left_at_a_ranks_end_cannot_undo_its_work(world: World) -> None:
    """A thread of gloo's once aborted a rank that had done everything: here that is certain."""
    body = """
import atexit
atexit.register(os.abort)
print("done", end="")
write_event(folder, {"rank": rank}) if rank == 0 else None
"""
    assert list(world.run(body)) == [{"rank": 0}]
    assert sorted(world.lines) == ["rank 0: done", "rank 1: done"]


def test_a_rank_killed_at_work_is_the_cause_whatever_the_others_say(world: World) -> None:
    """Real collectives: rank 0 sees its peer's connection close, and it listens to nobody else."""
    body = """
import psutil, torch
import torch.distributed as dist
dist.init_process_group("gloo")
for process in (psutil.Process(), psutil.Process().parent()):
    for connection in process.net_connections():
        if connection.status == "LISTEN":
            print("listens on", connection.laddr.ip)
number = 0
while True:
    dist.all_reduce(torch.ones(1000))
    number += 1
    if number == 100:
        note("working")
        if rank == 0:
            write_event(folder, {"number": number})
"""
    ranks = world.run(body)
    assert next(ranks) == {"number": 100}
    world.wait_for("working-0", "working-1")
    os.kill(world.pid("working-1"), signal.SIGKILL)
    assert str(failure_of(ranks)) == (
        "rank 1 was ended by SIGKILL (from outside, or because memory ran out); "
        "run it again: it goes on from its last checkpoint"
    )
    listening = {line.partition(": ")[2] for line in world.lines if "listens on" in line}
    assert listening == {"listens on 127.0.0.1"}


def test_a_rank_that_hangs_after_anothers_death_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LOST_GRACE_SECONDS", 2)
    body = """
if rank == 1:
    wait_for("deaf-0")
    os._exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("deaf")
time.sleep(1000)
"""
    assert str(failure_of(world.run(body))) == f"rank 1 ended with exit code 3; {ADVICE}"


def test_an_exception_is_told_in_one_sentence_and_kept_in_full(world: World) -> None:
    body = """
if rank == 0:
    time.sleep(1000)
write_event(folder, {"last": "words"})
raise RuntimeError("no route to host.\\nException raised from recvBytes, frame #0")
"""
    seen: list[dict[str, Any]] = []
    with pytest.raises(RankLost) as caught:
        seen.extend(world.run(body))
    assert seen == [{"last": "words"}]
    assert str(caught.value) == f"rank 1 failed with RuntimeError: no route to host; {ADVICE}"
    assert "rank 1: Exception raised from recvBytes" in "\n".join(world.lines)
    assert "torchrun: " not in "\n".join(world.lines)


def test_what_the_product_raises_on_purpose_stays_what_it_is(world: World) -> None:
    body = """
from gift_core.errors import Diverged
raise Diverged("step 7: the loss is nan; lower the learning rate")
"""
    failure = failure_of(world.run(body))
    assert type(failure) is Diverged
    assert str(failure) == "step 7: the loss is nan; lower the learning rate"


def test_closing_lets_the_ranks_save(world: World) -> None:
    body = """
def save(signum, frame):
    time.sleep(1)
    print("saved")
    note("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
note("ready")
write_event(folder, {"rank": rank})
time.sleep(1000)
"""
    with closing(world.run(body)) as ranks:
        next(ranks)
        world.wait_for("ready-0", "ready-1")
    world.wait_for("saved-0", "saved-1")
    assert sorted(world.lines) == ["rank 0: saved", "rank 1: saved"]
    assert world.left() == []


def test_who_ignores_sigterm_is_killed_with_all_that_it_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STOP_GRACE_SECONDS", 1)
    body = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(1000)", str(folder)]
subprocess.Popen(sleep, start_new_session=True)
note("deaf")
write_event(folder, {})
time.sleep(1000)
"""
    ranks = world.run(body)
    next(ranks)
    world.wait_for("deaf-0", "deaf-1")
    assert len(world.left()) == 5
    with pytest.raises(KeyboardInterrupt):
        ranks.throw(KeyboardInterrupt)
    assert world.left() == []


def test_a_killed_launcher_takes_the_ranks_with_it(world: World) -> None:
    ranks = world.run("write_event(folder, {'launcher': os.getppid()})\ntime.sleep(1000)")
    os.kill(next(ranks)["launcher"], signal.SIGKILL)
    assert "the launcher of the ranks was ended by SIGKILL" in str(failure_of(ranks))


@pytest.mark.parametrize("launcher_too", [False, True])
def test_a_killed_stage_leaves_nothing_behind(world: World, launcher_too: bool) -> None:
    body = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / "launcher").write_text(str(os.getppid()))
note("ready")
time.sleep(1000)
"""
    (world.folder.parent / "rank_under_test.py").write_text(PROLOGUE + body)
    stage = f"""
import sys
from pathlib import Path
from tasks import launch
launch.STOP_GRACE_SECONDS = 2
sys.path.insert(0, {str(world.folder.parent)!r})
folder = sys.argv[2]
list(launch.run_ranks("rank_under_test", [folder], 2, Path(folder), print))
"""
    command = [sys.executable, "-c", stage, "stage", str(world.folder)]
    with subprocess.Popen(command, cwd=launch.__file__.rpartition("/tasks/")[0]) as process:
        world.wait_for("ready-0", "ready-1")
        assert len(world.left()) == 3
        process.kill()
        if launcher_too:
            os.kill(world.pid("launcher"), signal.SIGKILL)
    wait_until(lambda: not world.left(), seconds=10 if launcher_too else 30)


def test_the_log_is_bounded_and_the_file_is_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginning and the end, which says why; the middle is counted."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # what the user has set stays
    body = """
print(os.environ["OMP_NUM_THREADS"], "x" * 5000)
for number in range(2500):
    print(number)
print("no end of line", end="")
"""
    assert list(world.run(body, processes=1)) == []
    assert world.lines[0] == "rank 0: 7 " + "x" * 1990
    assert world.lines[999] == "rank 0: 998"
    assert world.lines[1000] == "1,402 lines of the ranks are left out here"
    assert world.lines[1001] == "rank 0: 2401"
    assert world.lines[1099:] == ["rank 0: 2499", "rank 0: no end of line"]
    kept = (world.folder / "ranks.log").read_text().splitlines()
    assert kept[0] == "rank 0: 7 " + "x" * 5000
    assert kept[2500:] == ["rank 0: 2499", "rank 0: no end of line"]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    tail = Tail(tmp_path / launch.EVENTS)
    assert tail.lines() == []
    write_event(tmp_path, {"a": 1})
    with (tmp_path / launch.EVENTS).open("a") as file:
        file.write('{"b":')
    assert [json.loads(line) for line in tail.lines()] == [{"a": 1}]
    assert tail.lines() == []
    with (tmp_path / launch.EVENTS).open("a") as file:
        file.write(" 2}\n")
    assert [json.loads(line) for line in tail.lines()] == [{"b": 2}]


def test_a_launcher_that_fails_is_told_with_its_last_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    failure = str(failure_of(world.run("")))
    assert failure.startswith("the launcher of the ranks ended with exit code 127 (")
    assert failure.endswith(f"/no/such/python: not found); {ADVICE}")


def test_the_first_failure_of_a_rank_counts(tmp_path: Path) -> None:
    (tmp_path / launch.TORCHRUN_LOG).touch()
    write_failure(tmp_path, 1, ValueError("the cause"))
    write_failure(tmp_path, 1, ValueError("the clean-up failed too"))
    write_failure(tmp_path, 0, ConnectionError("closed by peer"))
    os.utime(tmp_path / "failure-1.json", (0, time.time() - 1))
    assert str(launch._first_failure(tmp_path, 0)).startswith(
        "rank 1 failed with ValueError: the cause;"
    )
