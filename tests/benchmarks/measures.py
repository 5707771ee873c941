"""Seconds, peak memory, counted operations, and how fast the machine multiplies matrices."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.benchmarks.ladder import Rung, Weights, rungs_for, steps_of
from tests.benchmarks.worlds import Setting, build_world
from tests.worlds import ROOT

Shape = torch.Size
NOTHING = "nothing"
GIB = 2**30
NUM_STEPS = 2
"""Steps of a memory child: AdamW's state is made at the end of the first."""


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Run a step to its very end."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _attention(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def operations(step: Callable[[], None]) -> int:
    """Count multiplications and additions of one step's matrix products, backward pass included.

    torch's counter has no formula for attention on a CPU, hence ours: the same ones.
    """
    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )
    with counter:
        step()
    return counter.get_total_flops()


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Multiply large square matrices; operations a second, the best of a few."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    torch.mm(a, b)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(repeats))


def peaks(rungs: Sequence[Rung], setting: Setting, done: Callable[[str], None]) -> dict[str, float]:
    """Peak memory of each rung's steps in GiB, by name, each in a process of its own.

    `nothing` is that of a process that only imports. One after the other: two plain steps at once
    would not fit a small machine.
    """
    found = {}
    for name in (NOTHING, *(rung.name for rung in rungs)):
        command = [sys.executable, "-m", "tests.benchmarks.measures", name]
        answer = subprocess.run(
            [*command, json.dumps(asdict(setting))], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        found[name] = json.loads(answer.stdout)["peak_gib"]
        done(name)
    return found


def _peak_gib(device: torch.device) -> float:
    """The peak of this process. Linux's ru_maxrss would count what the parent held at the fork."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def exact_numbers() -> None:
    """Let no fp32 product be rounded to TF32: not in matrices, not in convolutions."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _child(name: str, setting: Setting) -> None:
    exact_numbers()
    device = torch.device(setting.device)
    if name != NOTHING:
        (rung,) = (rung for rung in rungs_for(setting) if rung.name == name)
        world = build_world(setting)
        ready = steps_of(rung, Weights(world))
        for number in range(NUM_STEPS):
            ready(world.batch(number))()
    print(json.dumps({"peak_gib": _peak_gib(device)}))


if __name__ == "__main__":
    _child(sys.argv[1], Setting(**json.loads(sys.argv[2])))
