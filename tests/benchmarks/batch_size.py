"""Have `batch_size: auto` find its number on a CUDA card, for Stable Diffusion v1.5's size.

`python -m tests.benchmarks.batch_size --leave 12 6` finds it with the whole card, then with 12 and
6 GiB of it free, and prints each number, the batches that were tried for it, and the seconds.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tasks.models.batch_fit import CudaMemory, largest_batch
from tasks.models.generators import DiffusersSettings, Generator
from tests.benchmarks.sd15 import save_sd15

GIB = 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    """Find and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.batch_size", description=__doc__
    )
    parser.add_argument("--leave", type=float, nargs="*", default=[], help="GiB left free")
    parser.add_argument("--width", type=int, default=320, help="channels of the first level")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("no CUDA card here, and on a CPU `auto` is a constant; run it where one is")
    device, held = torch.device("cuda"), []
    with TemporaryDirectory(prefix="gift-") as folder:
        settings = DiffusersSettings(
            model=str(save_sd15(Path(folder), options.width)),
            image_size=512,
            channels_last=True,
        )
        generator = settings.load(device)
    print(torch.cuda.get_device_name(device))
    for leave in (None, *options.leave):
        if leave is not None:
            free, _ = torch.cuda.mem_get_info(device)
            taken = max(0, int(free - leave * GIB))
            held.append(torch.empty(taken, dtype=torch.uint8, device=device))
        print(_found(generator, device), flush=True)
    return 0


def _found(generator: Generator, device: torch.device) -> str:
    tried: list[int] = []

    def attempt(size: int) -> None:
        tried.append(size)
        generator.try_batch(size)

    began = time.perf_counter()
    size, measured = largest_batch(attempt, CudaMemory(device))
    numbers = ", ".join(f"{name} {value / GIB:.2f} GiB" for name, value in measured.items())
    return f"{size} of {numbers}; tried {tried}, {time.perf_counter() - began:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
