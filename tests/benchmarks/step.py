"""Time the training step against the official order of operations: `make bench`.

Prints tables; `--json FILE` writes the same as numbers, in seconds, GiB and operations:
`setting`, `machine`, `equality`, `seconds`, `memory`, `operations`, `ladder`. Exits with 1 when the
two sides' weights differ after three fp32 steps. docs/performance.md explains the figures.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gift_core.engine import Precision
from tests.benchmarks.comparison import num_pieces, run
from tests.benchmarks.tables import tables
from tests.benchmarks.worlds import MINIATURE, Setting


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = _parser().parse_args(arguments)
    setting = setting_of(options)
    setting.prepare()
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("peak memory", total=num_pieces(setting, options.ladder))
        results = run(
            setting,
            options.ladder,
            lambda what: progress.update(bar, advance=1, description=what),
        )
    for table in tables(results):
        Console().print(table, highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if results["equality"]["equal"] is False else 0


def setting_of(options: argparse.Namespace) -> Setting:
    """Fill in what was not said: small batches for a large model, large ones for the miniature."""
    small = options.miniature
    batch = 64 if small else 8
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Setting(
        model=MINIATURE if small else options.model,
        task_batch=options.task_batch or batch,
        replay_batch=options.replay_batch or batch,
        classes=options.classes or (16 if small else 100),
        device=device,
        precision=options.precision,
        compiled=options.compile,
        repeats=options.repeats,
        threads=options.threads,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.step", description=__doc__)
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip model, random weights")
    parser.add_argument("--miniature", action="store_true", help="the miniature's CLIP, 64 + 64")
    parser.add_argument("--task-batch", type=_count, help="labelled images a step")
    parser.add_argument("--replay-batch", type=_count, help="synthetic pairs a step")
    parser.add_argument("--classes", type=_count, help="class prompts of the task")
    parser.add_argument("--repeats", type=_count, default=3, help="timed pairs of steps")
    parser.add_argument("--threads", type=_count, help="processor threads (all cores)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="torch.compile our towers")
    parser.add_argument("--ladder", action="store_true", help="time every rearrangement")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
