"""Seconds, peak memory, counted operations, and how fast the machine multiplies matrices."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.benchmarks.ladder import Rung, Weights, rungs_for, steps_of
from tests.benchmarks.worlds import ROOT, Setting, build_world

Shape = torch.Size
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


@dataclass(frozen=True)
class Peak:
    """Peak memory of a process in GiB: when it had only imported, and after its steps."""

    imports: float
    steps: float

    @property
    def net(self) -> float:
        """What the work itself needed."""
        return self.steps - self.imports


def peaks(rungs: Sequence[Rung], setting: Setting, done: Callable[[str], None]) -> dict[str, Peak]:
    """Measure each rung's steps, by name, each in a process of its own.

    One after the other: two plain steps at once would not fit a small machine.
    """
    found = {}
    for rung in rungs:
        command = [sys.executable, "-m", "tests.benchmarks.measures", rung.name]
        answer = subprocess.run(
            [*command, json.dumps(asdict(setting))], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        found[rung.name] = Peak(**json.loads(answer.stdout))
        done(f"{rung.name}: {found[rung.name].steps:.1f} GiB")
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


def _child(name: str, setting: Setting) -> Peak:
    setting.prepare()
    device = torch.device(setting.device)
    imports = _peak_gib(device)
    (rung,) = (rung for rung in rungs_for(setting) if rung.name == name)
    world = build_world(setting)
    ready = steps_of(rung, Weights(world))
    for number in range(NUM_STEPS):
        ready(world.batch(number))()
    return Peak(imports, _peak_gib(device))


if __name__ == "__main__":
    print(json.dumps(asdict(_child(sys.argv[1], Setting(**json.loads(sys.argv[2]))))))
