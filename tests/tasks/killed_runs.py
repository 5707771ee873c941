"""Kill a fine-tuning again and again: `python -m tests.tasks.killed_runs WORLD.json`, one process.

torch and open_clip are imported once; each run is a fork of this process. A first run is unbroken.
Then, for each of the steps asked for, a run is killed by SIGKILL at some moment after that step,
and another goes on where it stopped. What each left, and what the second had to do, is printed as
JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import tasks.models.preprocessing
import tasks.models.towers  # noqa: F401 - open_clip takes seconds: once, not in each run
from tasks import learning_run
from tasks.finetune import finetune
from tasks.store.objects import FolderStore
from tests.tasks.learning_world import World

STEP_SECONDS = 0.05


def main(path: Path) -> None:
    """Run it all; the folder of the world's file takes the stores."""
    torch.set_num_threads(1)
    asked: dict[str, Any] = json.loads(path.read_text())
    world = World.open(Path(asked["folder"]))
    chance = random.Random(asked["seed"])  # noqa: S311 - a test's dice
    unbroken, steps = _run(world, path.parent / "unbroken", None, chance)
    outcomes = []
    for number, step in enumerate(asked["steps"]):
        store = path.parent / f"killed-{number}"
        nothing, _ = _run(world, store, step, chance)
        left = sorted(file.name for file in store.glob("checkpoints/*/*/*"))
        digest, again = _run(world, store, None, chance)
        outcomes.append(
            {
                "killed_after": step,
                "was_killed": nothing is None,
                "checkpoints": left,
                "same": digest == unbroken,
                "first_step_again": again[0] if again else None,
                # What a killed write left under its temporary name nobody sees; `gift gc` takes it.
                "left_over": len(FolderStore(store).list("checkpoints")),
            }
        )
    print(json.dumps({"num_steps": len(steps), "outcomes": outcomes}))


def _run(
    world: World, store: Path, kill_after: int | None, chance: random.Random
) -> tuple[str | None, list[int]]:
    """One fork: the digest of the model's manifest, None when it was killed; the steps it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(world, store, writing)
    os.close(writing)
    steps: list[int] = []
    digest = None
    with os.fdopen(reading) as lines:
        for line in lines:
            if line.startswith("done"):
                digest = line.split()[1]
            else:
                steps.append(int(line))
                if steps[-1] == kill_after:
                    time.sleep(chance.uniform(0, STEP_SECONDS))
                    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if digest is None and not os.WIFSIGNALED(status):
        sys.exit(f"a run failed by itself: {status}")
    return digest, steps


def _child(world: World, store: Path, writing: int) -> None:
    follow = learning_run._Run.follow

    def told(self: learning_run._Run, event: dict[str, Any]) -> None:
        follow(self, event)
        if event["kind"] == "step":
            os.write(writing, f"{event['step']}\n".encode())

    learning_run._Run.follow = told  # type: ignore[method-assign]
    try:
        objects = FolderStore(world.copy(store))
        produced = finetune.fn(objects, *world.arguments)
        os.write(writing, f"done {produced.manifest.digest}\n".encode())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
