"""Shards stored in turn, and each while the next is made: `-m tests.benchmarks.generation_commits`.

A stand-in waits `--generate` seconds for a shard's pictures, as who has a GPU at work, and the
folder that they go to waits `--upload` seconds, as a slow line does; both ways in turn, by the
clock. Nothing is judged here.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.behind import OneBehind
from tasks.generation import SynthesisSettings
from tasks.manifests import ShardManifest
from tasks.models.generators import DiffusersSettings, Pictures
from tasks.store.objects import FolderStore
from tasks.store.outputs import Produced
from tasks.synthesize import PairsPlan, generate_shard, plan_pairs
from tests.benchmarks.generation import PROMPTS
from tests.tasks.painter import Painter

Commit = Callable[[], Produced[ShardManifest]]


class SlowPainter(Painter):
    """A generator that takes its time for a batch and no processor."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        """Paint a batch, late."""
        time.sleep(self.seconds)
        return super().generate(prompts, seeds)


class SlowStore(FolderStore):
    """A folder at the end of a slow line."""

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root)
        self.seconds = seconds

    def upload(self, path: str, source: Path) -> None:
        """Upload a file, late."""
        time.sleep(self.seconds)
        super().upload(path, source)


def _in_turn(shards: Sequence[Callable[[], Commit]]) -> list[str]:
    return [make()().manifest.digest for make in shards]


def _behind(shards: Sequence[Callable[[], Commit]]) -> list[str]:
    with OneBehind("commit") as behind:
        commits = [behind.submit(make()) for make in shards]
    return [commit.result().manifest.digest for commit in commits]


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of each round both ways, their ratio, and whether the manifests were equal."""
    settings = SynthesisSettings(
        num_pairs=options.shards * options.pairs,
        pairs_per_shard=options.pairs,
        generator=DiffusersSettings(batch_size=options.pairs),
    )
    plan = plan_pairs("task", 1, PROMPTS, settings, Painter.identity, seed=0)
    painter = SlowPainter(options.generate)
    seconds: dict[str, list[float]] = {"in turn": [], "behind": []}
    digests = set()
    with TemporaryDirectory(prefix="gift-") as folder:
        for number in range(options.rounds):
            for name, way in (("in turn", _in_turn), ("behind", _behind)):
                store = SlowStore(Path(folder) / f"{number}-{name}", options.upload)
                began = time.perf_counter()
                digests.add(tuple(way(_shards(store, plan, painter))))
                seconds[name].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(seconds["in turn"], seconds["behind"], strict=True)]
    return {
        "seconds": {name: [round(each, 2) for each in taken] for name, taken in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "equal digests": len(digests) == 1,
    }


def _shards(store: FolderStore, plan: PairsPlan, painter: Painter) -> list[Callable[[], Commit]]:
    return [
        lambda start=start: generate_shard.fn(store, plan, start, lambda: painter)
        for start in plan.starts
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    """Read the options, measure, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=16, help="of a shard")
    parser.add_argument(
        "--generate", type=float, default=4.0, help="seconds a shard's pictures take"
    )
    parser.add_argument("--upload", type=float, default=1.0, help="seconds a shard's upload takes")
    parser.add_argument("--rounds", type=int, default=3)
    figures = measure(parser.parse_args(arguments))
    print(json.dumps(figures, indent=2))
    return figures


if __name__ == "__main__":
    main()
