"""Time generation in batches against one picture a call, as the released loop makes them.

`python -m tests.benchmarks.generation` takes the miniature's pipeline; `--shape sd15` one of Stable
Diffusion v1.5's layout with random weights, as large as `--width` says (320: the real one). Both
sides make the same pictures in one run, turn by turn, and processor time is counted, which other
work on the machine disturbs least (on a GPU, or with `--clock` on an idle machine: the clock). With
`--against-released` one a call takes the released 50 steps of PNDM, whatever the batches take:
other pictures, so they are not compared.

`--json FILE` writes `setting`, `machine`, `seconds` (a picture), `ratio` (median, lowest,
highest), `equality` and `digests`. Exits with 1 when pictures differ by more than one grey level in
over 0.1 % of their values, or a batch made twice differs.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.models.generators import DiffusersSettings, Generator
from tests.benchmarks.machines import this_machine
from tests.benchmarks.sd15 import save_sd15
from tests.worlds import GENERATOR

RELEASED_STEPS = 50
MAX_SHARE = 0.001
"""Of values that may differ by more than a grey level."""

COLOURS = ("red", "green", "blue", "pink", "yellow", "purple", "orange", "white")
PROMPTS = [f"a photo of a {colour} {shape}." for shape in ("star", "ring") for colour in COLOURS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    results = measure(options)
    ratio, seconds = results["ratio"], results["seconds"]
    print(f"on {results['machine']['name']}, torch {results['machine']['torch']}")
    for side, name in (("single", "one a call"), ("batched", "in batches")):
        picture = statistics.median(seconds[side])
        print(f"{name}: {picture:.4f} s a picture, {1 / picture:.2f} pictures/s")
    print(f"ratio {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")
    if not options.against_released:
        print(f"values more than a grey level apart: {100 * results['equality']['share']:.3f} %")
    print(f"{len(set(results['digests']))} digest(s) of {len(results['digests'])} equal batches")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    same = results["equality"]["equal"] is not False
    return 0 if same and len(set(results["digests"])) == 1 else 1


def measure(options: argparse.Namespace) -> dict[str, dict]:  # type: ignore[type-arg]
    """Both ways, turn by turn: the batch whole, and its first pictures one a call."""
    with TemporaryDirectory(prefix="gift-") as folder:
        generator, single = _generators(options, Path(folder))
    prompts = [PROMPTS[n % len(PROMPTS)] for n in range(options.batch)]
    seeds = list(range(options.batch))
    one = slice(0, options.single)
    generator.generate(prompts, seeds)  # what is set up at the first call is not counted
    single.generate(prompts[:1], seeds[:1])
    by_clock = options.clock or torch.cuda.is_available()
    timed = partial(_timed, time.perf_counter if by_clock else time.process_time)
    turns: list[Turn] = []
    for number in range(options.repeats):
        batch, batched = timed(lambda: np.stack(generator.generate(prompts, seeds).images))
        alone, one_a_call = timed(
            lambda: np.stack(
                [
                    single.generate([prompt], [seed]).images[0]
                    for prompt, seed in zip(prompts[one], seeds[one], strict=True)
                ]
            )
        )
        turns.append(
            Turn(
                batched / len(batch),
                one_a_call / len(alone),
                float((np.abs(batch[one].astype(int) - alone) > 1).mean()),
                hashlib.sha256(batch.tobytes()).hexdigest(),
            )
        )
        print(f"turn {number + 1}: {turns[-1]}", file=sys.stderr, flush=True)
    ratios = [turn.single / turn.batched for turn in turns]
    share = max(turn.share for turn in turns)
    device = torch.device(options.device)
    return {
        "setting": {k: str(v) for k, v in vars(options).items() if k != "json"},
        "machine": this_machine(device),
        "seconds": {
            "single": [turn.single for turn in turns],
            "batched": [turn.batched for turn in turns],
        },
        "ratio": {
            "median": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
        },
        "equality": {
            "share": share,
            "equal": None if options.against_released else share <= MAX_SHARE,
        },
        "digests": [turn.digest for turn in turns],
    }


class Turn(NamedTuple):
    """Seconds a picture both ways, the share of values apart, the batch's digest."""

    batched: float
    single: float
    share: float
    digest: str


def _timed(
    clock: Callable[[], float], make: Callable[[], NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], float]:
    """Make pictures; the seconds by that clock."""
    start = clock()
    made = make()
    return made, clock() - start


def _generators(options: argparse.Namespace, folder: Path) -> tuple[Generator, Generator]:
    """The batched one as it was asked for, and the released one: no tricks, a picture a call."""
    model = GENERATOR
    if options.shape == "sd15":
        model = save_sd15(folder, options.width)
    settings = DiffusersSettings(
        model=str(model),
        num_steps=options.steps,
        guidance_scale=4.0,
        image_size=options.size,
        solver=options.solver,
        batch_size=options.batch,
    )
    fast = settings.model_copy(
        update={
            "precision": options.precision,
            "channels_last": options.channels_last,
            "compile": options.compile,
        }
    )
    device = torch.device(options.device)
    released = {"solver": "released", "num_steps": RELEASED_STEPS}
    alone = settings.model_copy(update=released) if options.against_released else settings
    single = alone.load(device)
    del single.pipeline.encode_prompt  # type: ignore[attr-defined]  # the pipeline's own again
    return fast.load(device), single


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.generation", description=__doc__
    )
    parser.add_argument("--shape", choices=("miniature", "sd15"), default="miniature")
    parser.add_argument("--width", type=int, default=64, help="channels of sd15's first level")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--solver", default="model", help="as in synthesis.generator")
    parser.add_argument("--batch", type=int, default=50, help="pictures a call")
    parser.add_argument("--single", type=int, default=5, help="pictures made one a call, a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument(
        "--clock", action="store_true", help="count by the clock, not processor time"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", default="auto", help="of the batches")
    parser.add_argument(
        "--against-released", action="store_true", help="one a call: 50 steps of PNDM"
    )
    parser.add_argument("--channels-last", action="store_true", help="in the batches")
    parser.add_argument("--compile", action="store_true", help="in the batches")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
