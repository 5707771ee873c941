"""Replay pairs by one run and by several, in turn: `python -m tests.benchmarks.generation_runs`.

A real server, a worker a run. Each round makes the same pairs into an empty store, first with one
run, then with several. How much several gain depends on the cores; with too few they show what
sharing costs. Nothing is judged here.
"""

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from flows.pools import Pools
from tasks.check import check_sequence
from tasks.sequence import SequenceSettings
from tasks.store.address import open_store
from tasks.synthesize import plan_pairs
from tests.deployments.pool_world import one_task, pool_server
from tests.worlds import write_tiny_data


def world(data: Path, store: Path, num_pairs: int, num_steps: int) -> SequenceSettings:
    """The tiny sequence with so many pairs, in a dozen shards."""
    sequence = one_task(data, store)
    generator = sequence.synthesis.generator.model_copy(update={"num_steps": num_steps})
    synthesis = sequence.synthesis.model_copy(
        update={
            "num_pairs": num_pairs,
            "pairs_per_shard": max(1, num_pairs // 12),
            "generator": generator,
        }
    )
    return sequence.model_copy(update={"synthesis": synthesis})


@flow(name="generation", persist_result=False)
def generation(sequence: SequenceSettings, num_runs: int) -> str:
    """Make the pairs of the first task; the digest of their manifest."""
    plan = check_sequence(sequence, open_store(sequence.store.url))
    task, identity = plan.tasks[0], plan.generator_identity or ""
    pool, settings = plan.prompt_pool(task), sequence.synthesis
    pairs = plan_pairs(task.name, task.index, pool, settings, identity, sequence.seed)
    produced = Pools(num_runs).synthesize(sequence.store, pairs)
    return produced.manifest.digest if produced else ""


def measure(folder: Path, num_runs: int, num_pairs: int, num_steps: int, rounds: int) -> Any:  # noqa: ANN401 - JSON
    """Seconds of each round, by the number of runs, and whether the digests were equal."""
    data = write_tiny_data(folder / "data")
    seconds: dict[int, list[float]] = {1: [], num_runs: []}
    digests = set()
    with pool_server(folder / "service", 90) as service:
        for number in range(num_runs):
            service.start_worker("gpu", f"gpu-{number}")
        generation(world(data, folder / "warm-up", 12, 1), num_runs)
        for number in range(rounds):
            for runs, taken in seconds.items():
                store = folder / f"{number}-{runs}"
                began = time.perf_counter()
                digests.add(generation(world(data, store, num_pairs, num_steps), runs))
                taken.append(round(time.perf_counter() - began, 1))
    ratio = min(seconds[num_runs]) / min(seconds[1])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "pairs": num_pairs,
        "seconds": seconds,
        "ratio": round(ratio, 3),
        "equal digests": len(digests) == 1,
    }


def main() -> None:
    """Read the options, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="gift-") as folder:
        figures = measure(Path(folder), asked.runs, asked.pairs, asked.steps, asked.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
