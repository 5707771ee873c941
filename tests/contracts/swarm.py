"""Eight processes at once on one store; run as a program, so that no thread is there to fork.

    python -m tests.contracts.swarm URL ACT

ACT is `count` (a counter raised by compare-and-swap), `promote` (a head moved by the registry),
`arrive` (tasks kept as arrived, some of them by all) or `repair` (an output that no longer counts,
made anew by all, each with bytes of its own).
"""

import os
import random
import subprocess
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.manifests import ModelManifest, RunRecord, sha256_hex
from tasks.store import s3
from tasks.store.address import open_store
from tasks.store.arrivals import Arrival, Arrivals, change_arrivals
from tasks.store.heads import Candidate, ModelReference
from tasks.store.objects import ObjectStore
from tasks.store.outputs import commit_output, plan_output
from tasks.store.registry import promote

ROOT = Path(__file__).resolve().parents[2]
NUM_PROCESSES, NUM_TIMES, NUM_REPAIRS = 8, 50, 8
RECORD = RunRecord(started="2026-01-01T00:00:00+00:00", seconds=1.5, device="cpu", num_threads=2)
s3.S3Store("s3://imported/before-the-fork")


def swarm(url: str, act: str) -> None:
    """Run the act in NUM_PROCESSES processes, NUM_TIMES each; AssertionError when one fails."""
    command = [sys.executable, "-m", "tests.contracts.swarm", url, act]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


def count(store: ObjectStore, _worker: int, _number: int) -> None:
    """Raise a counter by one: no two versions of it are equal."""
    while True:
        found = store.read_versioned("counter")
        value = int(found[0]) if found else 0
        if store.compare_and_swap("counter", str(value + 1).encode(), found[1] if found else None):
            return
        time.sleep(random.uniform(0, 0.1))  # noqa: S311 - no secret


def promote_one(store: ObjectStore, worker: int, number: int) -> None:
    """Make a model of its own the head."""
    promoted = promote(
        store, "raced", candidate(worker, number), reason=f"{number}", actor=f"{worker}"
    )
    assert promoted is not None


def candidate(worker: int, number: int) -> Candidate:
    """A made-up model; nobody looks at its files here."""
    key = sha256_hex(f"{worker} {number}".encode())
    model = ModelReference(output=f"finetune/{key}", digest=key)
    return Candidate(model=model, lineage={model.output: key})


def arrive(store: ObjectStore, worker: int, number: int) -> None:
    """Keep a task as arrived, once; every fifth is one that all the others bring as well."""
    whose = "all" if number % 5 == 0 else str(worker)
    identity = sha256_hex(f"{whose} {number}".encode())
    arrival = Arrival(
        number=1, name=f"{whose}-{number}", identity=identity, settings={}, digests={}
    )

    def add(found: Arrivals) -> Arrivals:
        return found if found.known(identity) else found.with_added(arrival)

    assert change_arrivals(store, "raced", add).known(identity) is not None


def repair(store: ObjectStore, worker: int, number: int) -> None:
    """Make output `number` as this worker makes it, and note which manifest counts for it."""
    if number < NUM_REPAIRS:
        kept = commit(store, worker, number)
        store.replace_bytes(f"kept/{number}/{worker}", kept.digest.encode())


def commit(store: ObjectStore, worker: int, number: int) -> ModelManifest:
    """Commit output `number` with bytes that tell the worker."""
    asked = plan_output(
        ModelManifest, stage="finetune", name="raced", settings={"number": number}, inputs={},
        architecture="a", parent=None, task="raced", num_steps=1,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        Path(folder, "model").write_bytes(f"made by {worker}".encode())
        return commit_output(store, asked, Path(folder), RECORD)


ACTS = {"count": count, "promote": promote_one, "arrive": arrive, "repair": repair}


def main(url: str, act: str) -> int:
    """Fork, work, wait; the number of processes that failed."""
    children = []
    for worker in range(NUM_PROCESSES):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                store = open_store(url)
                for number in range(NUM_TIMES):
                    ACTS[act](store, worker, number)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
