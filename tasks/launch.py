"""Several processes for one training: start them, hear them, leave none of them behind.

    stage     run_ranks    starts the launcher, yields rank 0's events, says what went wrong
    launcher  _supervise   torchrun's own engine (its LocalElasticAgent), a process of its own
    rank      _be_rank     dies with its launcher, runs the module that was asked for

Not `python -m torch.distributed.run`: its store listens on every interface, it waits 30 s for a
rank that hangs after another one died, and it tells by whole seconds who failed first. The ranks
see torchrun's environment all the same.
"""

import ctypes
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from gift_core.errors import GiftError, RankLost, error_named
from tasks.rank_output import RankOutput, Tail

STOP_GRACE_SECONDS = 20  # from SIGTERM to SIGKILL: time to save a checkpoint
LOST_GRACE_SECONDS = 8  # the same after a rank's death: the others wait for what will not come
POLL_SECONDS = 0.1

EVENTS, RANKS_LOG, TORCHRUN_LOG, JOB = "events.jsonl", "ranks.log", "torchrun.log", "launch.json"
OURS = (EVENTS, RANKS_LOG, TORCHRUN_LOG, JOB, "failure-*.json", "rank-*.log")
LOCALHOST = "127.0.0.1"
ADVICE = "run it again: it goes on from its last checkpoint"


def run_ranks(
    module: str, arguments: Sequence[str], processes: int, folder: Path, log: Callable[[str], None]
) -> Generator[dict[str, Any], None, None]:
    """Run `module` in so many processes of this machine; yield rank 0's events as they come.

    `folder` exists and is this run's own (what an earlier run left there is removed). Output goes
    to its ranks.log, and a bounded part to `log`, line by line, "rank 1: ...". When the generator
    is closed, or an exception passes through it, the ranks get SIGTERM and STOP_GRACE_SECONDS, and
    no process is left; contextlib.closing does that at once for an exception of the consumer.
    Raises what the rank that failed first raised if that is an error of the product (Diverged,
    DataError, ...), else RankLost.
    """
    for path in (path for pattern in OURS for path in folder.glob(pattern)):
        path.unlink()
    job = {"command": [module, *arguments], "processes": processes, "stage": os.getpid()}
    job |= {"stop_grace": STOP_GRACE_SECONDS, "lost_grace": LOST_GRACE_SECONDS}
    _write_json(folder / JOB, job)
    events, output = Tail(folder / EVENTS), _output(folder, processes, log)
    mark = f"GIFT_RANKS={uuid4().hex}"  # what no descendant loses, whatever session it is in
    launcher = _start_launcher(processes, folder, mark)
    try:
        running = True
        while running:
            running = launcher.poll() is None  # asked before reading: the last round reads all
            output.pass_on()
            yield from (json.loads(line) for line in events.lines())
            if running:
                time.sleep(POLL_SECONDS)
        if failure := _first_failure(folder, launcher.returncode):
            raise failure
    finally:
        _end(launcher, mark, output)


def write_event(folder: Path, record: Mapping[str, Any]) -> None:
    """Append one record for the stage; called in rank 0. OSError when the disk is full."""
    line = json.dumps(record).encode() + b"\n"
    with (folder / EVENTS).open("ab", buffering=0) as file:  # unbuffered: one write, one line
        if file.write(line) != len(line):
            raise OSError(f"{folder / EVENTS}: no room for {len(line)} bytes")


def write_failure(folder: Path, rank: int, error: BaseException) -> None:
    """Tell the stage what this rank raised; only the first call of a rank counts.

    All that leaves the module is told anyway. Call it before a clean-up that takes long, or that
    the other ranks notice: the time of the call says who failed first.
    """
    path = folder / f"failure-{rank}.json"
    if not path.exists():
        _write_json(path, {"kind": type(error).__name__, "message": str(error)})


def _write_json(path: Path, value: object) -> None:
    """Write a small file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value))
    part.replace(path)


def _output(folder: Path, processes: int, log: Callable[[str], None]) -> RankOutput:
    parts = {"torchrun": folder / TORCHRUN_LOG}
    parts |= {f"rank {number}": folder / f"rank-{number}.log" for number in range(processes)}
    # What torchrun says in a table, the error says in a sentence.
    return RankOutput(folder / RANKS_LOG, parts, log, quiet=frozenset({"torchrun"}))


def _start_launcher(processes: int, folder: Path, mark: str) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // processes)  # torchrun sets 1, with a warning
    # What the user has set stays: the shell decides, the environment is not read here. Gloo and
    # NCCL open sockets of their own, which are nobody's business outside this machine either.
    defaults = {"OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    exports = " ".join(f'{name}="${{{name}:-{value}}}"' for name, value in defaults.items())
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    command = ["/usr/bin/env", f"PYTHONPATH={path}", mark]
    command += ["/bin/sh", "-c", f'export {exports}; exec "$@" </dev/null 2>&1', "sh"]
    command += [sys.executable, "-P", "-m", "tasks.launch", "supervise", str(folder)]
    with (folder / TORCHRUN_LOG).open("ab") as output:
        # a session of its own: Ctrl-C is for the stage, which stops the ranks in order
        return subprocess.Popen(command, stdout=output, start_new_session=True)  # noqa: S603


def _end(launcher: subprocess.Popen[bytes], mark: str, output: RankOutput) -> None:
    """End what still runs: SIGTERM, the grace, SIGKILL; also when this is itself interrupted."""
    try:
        launcher.terminate()
        deadline = time.monotonic() + STOP_GRACE_SECONDS + 3  # the launcher keeps the grace itself
        while launcher.poll() is None and time.monotonic() < deadline:
            output.pass_on()
            time.sleep(POLL_SECONDS)
    finally:
        launcher.kill()
        launcher.wait()
        _kill_marked(mark.encode())
        output.pass_on(last=True)


def _kill_marked(mark: bytes) -> None:
    """SIGKILL all that inherited the mark, whoever their parent is by now."""
    deadline = time.monotonic() + 5  # a process that hangs in a driver outlives even that
    left = True
    while left and time.monotonic() < deadline:
        left = False
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # gone by now, or another user's
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)
                    left = True
        time.sleep(0.02)


def _first_failure(folder: Path, launcher_code: int) -> GiftError | None:
    """The error of the rank that failed first, of which the others' are consequences; or None."""
    paths = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime)
    if not paths and not launcher_code:
        return None
    who, kind, message = "the launcher of the ranks", "", _described(launcher_code)
    if said := (folder / TORCHRUN_LOG).read_text(errors="replace").split("\n")[-2:-1]:
        message += f" ({said[0]})"
    if paths:
        who = paths[0].stem.replace("failure-", "rank ")
        kind, message = json.loads(paths[0].read_text()).values()
    if known := error_named(kind, message):
        return known
    what = f"failed with {kind}: {message.strip()}" if kind else message
    # torch's messages go on with a trace of C++; the log has it
    return RankLost(f"{who} {what.splitlines()[0][:500].rstrip(' .:;')}; {ADVICE}")


def _described(code: int) -> str:
    """How a process ended, from its exit code as subprocess has it."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
    hint = " (from outside, or because memory ran out)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _note_deaths(folder: Path, codes: Mapping[int, int | None], well: float) -> None:
    """Write down the deaths that a rank could not write down itself."""
    for rank, code in codes.items():
        path = folder / f"failure-{rank}.json"
        if code and not path.exists():
            _write_json(path, {"kind": "", "message": _described(code)})
            # It died at some time after all were seen well. What another rank raised since then is
            # no cause of that. The times of files are coarse.
            os.utime(path, (well, well - 0.01))


def _exit_code(pid: int) -> int | None:
    """How a child ended, leaving it to be reaped by its owner; None while it runs."""
    if (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _supervise(folder: Path) -> None:
    """The launcher: run the ranks, note who dies. Only this part imports torch: that takes 3 s."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]
    from torch.distributed.elastic.agent.server import api
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    job = json.loads((folder / JOB).read_text())
    # A store listens on every interface, save on a socket that it is given. The one that torchrun
    # opens on the same port shares the server of this one (multi_tenant).
    listening = socket.create_server((LOCALHOST, 0))
    port, file = listening.getsockname()[1], listening.detach()
    store = TCPStore(LOCALHOST, port, is_master=True, multi_tenant=True, master_listen_fd=file)

    class Agent(LocalElasticAgent):
        well = time.time()

        def _monitor_workers(self, worker_group: api.WorkerGroup) -> api.RunResult:
            if os.getppid() != job["stage"]:
                sys.exit("the stage is gone")  # which stops the ranks first
            now = time.time()
            codes = {worker.global_rank: _exit_code(worker.id) for worker in worker_group.workers}
            if None in codes.values() and not any(codes.values()):
                self.well = now
                return api.RunResult(state=api.WorkerState.HEALTHY)
            _note_deaths(folder, codes, self.well)
            self._shutdown(signal.SIGTERM, job["lost_grace"])
            return super()._monitor_workers(worker_group)  # type: ignore[no-any-return]

    rank = ("-P", "-u", "-m", "tasks.launch", "rank", str(folder).replace("$", "$$"))
    spec = api.WorkerSpec(
        role="rank",
        local_world_size=job["processes"],
        entrypoint=sys.executable,
        args=(*rank, "${local_rank}", str(os.getpid())),
        rdzv_handler=StaticTCPRendezvous(LOCALHOST, store.port, 0, 1, uuid4().hex, timeout=600),
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
    )
    logs = DefaultLogsSpecs(str(folder / "torchrun"))
    Agent(spec, logs, shutdown_timeout=job["stop_grace"]).run()


def _be_rank(folder: Path, rank: int, launcher: int) -> None:
    """A rank: it ends with its launcher, its output goes to a file, its errors to the stage."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != launcher:
        sys.exit("the launcher is gone")
    with (folder / f"rank-{rank}.log").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = json.loads((folder / JOB).read_text())["command"]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            write_failure(folder, rank, error)
        raise
    sys.stdout.flush()
    sys.stderr.flush()
    # Not the interpreter's end: DistributedDataParallel keeps gloo's threads alive past the group,
    # and one that still gives back a tensor then aborts a process whose work is done.
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        _supervise(Path(sys.argv[2]))
    else:
        _be_rank(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
