"""Kill the demo's run at random moments, resume it, and compare with the unbroken run.

    python -m tests.soak.sweep --folder 50 --s3 50 --seed 0

Each kill has a store of its own. Half of the moments are drawn uniformly over the run's time. The
other half are drawn in storing and working: a stage, one of the lines that it tells (before and
after an operation of the store, an output begun, a training step), and from there nothing or a few
milliseconds. Exit code 1 when anything was wrong; the stores are kept then.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.miniature.data_sets import write_all
from deployments.seaweed import running_seaweed
from tests.prefect_server import running_server
from tests.soak.forks import Kill, Told, forked
from tests.soak.judging import Left, Work, problems, repeated, stages_of_lines

if TYPE_CHECKING:
    from tests.soak.world import Soaked

DATA = Path(".gift/data/miniature")
MAX_DELAY_SECONDS = 0.03
UNITS = {
    "check": "", "pretrained": "model", "synthesize": "shard",
    "finetune": "training step", "estimate-fisher": "estimate", "evaluate": "score", "promote": "",
    "report": "report",
}  # fmt: skip
LATEST_SHARE = 0.95  # of the unbroken run's time: a run that is faster must be killed all the same


class Sweep:
    """Kills, resumes and what they showed; everything lies below the folder `work`."""

    def __init__(self, work: Path, num_tasks: int, dice: random.Random) -> None:
        # Here, because Prefect reads the server's address when it is imported.
        from tests.soak.world import CHECKPOINT_EVERY, Soaked, write_thin_data

        write_thin_data(DATA, work / "data")
        self._soaked = partial(
            Soaked, data=work / "data", cache=work / "cache", num_tasks=num_tasks
        )
        self._checkpoint_every = CHECKPOINT_EVERY
        self._work, self._dice = work, dice
        self._manifests: dict[str, str] = {}
        self.outcomes: list[dict[str, Any]] = []

    def kill_often(self, kind: str, url: str, number: int) -> None:
        """Run once unbroken, then kill and resume so many times; RuntimeError when a run fails."""
        unbroken, left = self._unbroken(kind, url)
        for kill in range(1, number + 1):
            self.outcomes.append(outcome := self._kill_once(f"{kind}-{kill}", url, unbroken, left))
            told = "; ".join(outcome["wrong"]) or "as if unbroken"
            again = outcome["repeated"] or "nothing"
            print(
                f"{outcome['name']:10} {outcome['stage']:16} {outcome['moment']:26} {told}, "
                f"done again: {again}",
                flush=True,
            )

    def _unbroken(self, kind: str, url: str) -> tuple[Work, Left]:
        soaked = self._fresh(f"{kind}-unbroken", url)
        told = forked(soaked.run, soaked.scratch / "run.log")
        if told.exit_code:
            raise RuntimeError(f"the unbroken run failed: {soaked.scratch / 'run.log'}")
        print(f"{kind}: unbroken in {told.seconds:.1f} s, {len(told.lines)} moments", flush=True)
        left = self._look(soaked)
        self._manifests = self._manifests or left.manifests
        return Work(told), replace(left, manifests=self._manifests)  # on S3 the folder's

    def _kill_once(self, name: str, url: str, unbroken: Work, left: Left) -> dict[str, Any]:
        for attempt in count():
            soaked = self._fresh(f"{name}.{attempt}" if attempt else name, url)
            kill = self._draw(unbroken.told)
            told = forked(soaked.run, soaked.scratch / "killed.log", kill)
            if told.was_killed:
                break
            if told.exit_code:
                raise RuntimeError(f"a run failed by itself: {soaked.scratch / 'killed.log'}")
        killed = Work(told)
        resumed = Work(forked(soaked.run, soaked.scratch / "resumed.log"))
        try:
            left_now = self._look(soaked)
            found = list(
                problems(unbroken, left, killed, resumed, left_now, self._checkpoint_every)
            )
        except RuntimeError as error:
            found = [str(error)]
        return {
            "name": name,
            "moment": str(kill),
            "stage": killed.last_stage,
            "last": killed.told.lines[-1] if killed.told.lines else "",
            "repeated": repeated(killed, resumed).units,
            "seconds": round(killed.told.seconds + resumed.told.seconds, 1),
            "wrong": found,
        }

    def _draw(self, unbroken: Told) -> Kill:
        dice = self._dice
        if dice.random() < 0.5:
            return Kill(None, dice.uniform(0, LATEST_SHARE * unbroken.seconds))
        stages = stages_of_lines(unbroken)
        stage = dice.choice(sorted(set(stages)))
        line = dice.choice([line for line, each in enumerate(stages, 1) if each == stage])
        return Kill(line, dice.choice([None, dice.uniform(0, MAX_DELAY_SECONDS)]))

    def _fresh(self, name: str, url: str) -> "Soaked":
        scratch = self._work / "runs" / name
        scratch.mkdir(parents=True)
        return self._soaked(store=f"{url}/{name}", scratch=scratch)

    def _look(self, soaked: "Soaked") -> Left:
        if forked(soaked.look, soaked.scratch / "look.log").exit_code:
            raise RuntimeError(f"the store cannot be looked at: {soaked.scratch / 'look.log'}")
        return soaked.left()


def table(outcomes: list[dict[str, Any]]) -> str:
    """Kills by stage, and what was done again."""
    lines = [f"{'stage':16}{'kills':>6}{'at most':>9}{'in all':>8}  unit done again"]
    for stage, unit in UNITS.items():
        again = [outcome["repeated"].get(stage, 0) for outcome in outcomes]
        kills = sum(outcome["stage"] == stage for outcome in outcomes)
        lines.append(f"{stage:16}{kills:6}{max(again, default=0):9}{sum(again):8}  {unit}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Sweep; 0 when every kill was survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=int, default=50, help="kills on a folder (50)")
    parser.add_argument("--s3", type=int, default=50, help="kills on SeaweedFS (50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--tasks", type=int, default=2, help="tasks of the sequence (2)")
    parser.add_argument("--work", type=Path, default=Path(".gift/soak"), help="folder, emptied")
    options = parser.parse_args(arguments)
    work = options.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_all(DATA)
    started = time.monotonic()
    with ExitStack() as stack:
        os.environ.update(stack.enter_context(running_server(work / "prefect")).environment)
        stores = {"folder": str(work / "stores")}
        if options.s3:
            seaweed = stack.enter_context(running_seaweed(work / "seaweed"))
            stack.enter_context(seaweed.environment())
            stores["s3"] = f"s3://{seaweed.bucket}"
        sweep = Sweep(work, options.tasks, random.Random(options.seed))  # noqa: S311 - dice
        for kind, url in stores.items():
            sweep.kill_often(kind, url, getattr(options, kind))
    (work / "outcomes.json").write_text(json.dumps(sweep.outcomes, indent=1) + "\n")
    num_wrong = sum(bool(outcome["wrong"]) for outcome in sweep.outcomes)
    print(table(sweep.outcomes))
    print(
        f"{len(sweep.outcomes)} kills, {len(sweep.outcomes) - num_wrong} completed as if unbroken, "
        f"{time.monotonic() - started:.0f} s"
    )
    if num_wrong:
        return 1
    for folder in ("stores", "seaweed"):
        shutil.rmtree(work / folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
