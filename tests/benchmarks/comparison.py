"""The benchmark itself: plain against ours, and the ladder between them, as plain numbers."""

from collections.abc import Callable
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch

from gift_core.engine import AUTOCAST
from tests.benchmarks.ladder import Rung, Weights, largest_differences, rungs_for, steps_of
from tests.benchmarks.machines import this_machine
from tests.benchmarks.measures import Peak, matrix_rate, operations, peaks, seconds
from tests.benchmarks.plain_step import PlainBatch, unit_features
from tests.benchmarks.worlds import Setting, World, build_world

CHECKED_STEPS = 3
TOLERANCE = 2e-5
"""Of a weight after the checked fp32 steps, each of which moves it by up to 1e-5; not of the
attentions' key biases (see `largest_differences`)."""
TASK_STEPS, TASK_PAIRS = 1000, 1000
"""The paper's task: what the teacher sees once is spread over this many steps."""

Results = dict[str, Any]
Done = Callable[[str], None]


def num_pieces(setting: Setting, with_ladder: bool) -> int:
    """Say how often `run` will call `done`."""
    num_rungs = len(rungs_for(setting)) if with_ladder else 2
    climbed = (setting.repeats + 1) * num_rungs if with_ladder else 0
    return num_rungs + 2 * (CHECKED_STEPS + setting.repeats) + climbed


def run(setting: Setting, with_ladder: bool, done: Done) -> Results:
    """Measure everything; `done` hears of each piece of work. The keys are those of the JSON."""
    rungs = rungs_for(setting)
    # First, while this process holds no weights: what a child needs is then there.
    peak = peaks(rungs if with_ladder else (rungs[0], rungs[-1]), setting, done)
    world = build_world(setting)
    results: Results = {
        "setting": asdict(setting),
        "machine": this_machine(torch.device(setting.device)),
    }
    results |= compared(world, done)
    results["memory"] = _memory(peak[rungs[0].name], peak[rungs[-1].name])
    results["ladder"] = climbed(world, peak, done) if with_ladder else []
    return results


def compared(world: World, done: Done) -> Results:
    """Check that plain and ours agree and count their operations, then time them in turns."""
    rungs = rungs_for(world.setting)
    sides = {"plain": rungs[0], "ours": rungs[-1]}
    weights = {side: Weights(world) for side in sides}
    ready = {side: steps_of(rung, weights[side]) for side, rung in sides.items()}
    counted = {}
    for number in range(CHECKED_STEPS):  # they are the warm-up, too
        batch = world.batch(number)
        for side, rung in sides.items():
            if number == 0:
                counted[side] = _counted(rung, weights[side], batch)
            else:
                ready[side](batch)()
            done(f"{side}: checked step {number + 1}")
    equality = _equality(weights, world.setting)
    taken: dict[str, list[float]] = {side: [] for side in sides}
    rates = []
    for number in range(world.setting.repeats):
        batch = world.batch(CHECKED_STEPS + number)
        for side in sides:
            taken[side].append(seconds(ready[side](batch), world.device))
            done(f"{side}: {taken[side][-1]:.3g} s")
        rates.append(matrix_rate(world.device, _dtype(world.setting)))
    return {
        "equality": equality,
        "seconds": _seconds(taken) | {"teacher_once": _teacher_seconds(world)},
        "operations": _operations(counted, median(rates), median(taken["ours"]), world.setting),
    }


def climbed(world: World, peak: dict[str, Peak], done: Done) -> list[Results]:
    """Time every rung in turns on one student: what the weights are does not matter to a clock."""
    rungs, weights = rungs_for(world.setting), Weights(world)
    ready = [steps_of(rung, weights) for rung in rungs]
    counted, taken = [], [[] for _ in rungs]
    for rung, make in zip(rungs, ready, strict=True):  # the warm-up
        counted.append(_counted(rung, weights, world.batch(0)))
        if rung.compiled:
            make(world.batch(0))()
        done(f"{rung.name}: warm-up")
    for number in range(world.setting.repeats):
        batch = world.batch(1 + number)
        for rung, make, times in zip(rungs, ready, taken, strict=True):
            times.append(seconds(make(batch), world.device))
            done(f"{rung.name}: {times[-1]:.3g} s")
    return [
        {
            "rung": rung.name,
            "adds": rung.adds,
            "seconds": times,
            "median": median(times),
            "times_plain": median(taken[0]) / median(times),
            "operations": number,
            "peak_gib": peak[rung.name].steps,
        }
        for rung, times, number in zip(rungs, taken, counted, strict=True)
    ]


def _counted(rung: Rung, weights: Weights, batch: PlainBatch) -> int:
    """Take one step and count it, as written: compiled code hides its operations."""
    return operations(steps_of(replace(rung, compiled=False), weights)(batch))


def _equality(weights: dict[str, Weights], setting: Setting) -> Results:
    difference, of_key_biases = largest_differences(weights["plain"].clip, weights["ours"].clip)
    exact = setting.precision == "fp32"
    return {
        "steps": CHECKED_STEPS,
        "largest_difference": difference,
        "of_key_biases": of_key_biases,
        "tolerance": TOLERANCE if exact else None,
        "equal": difference < TOLERANCE if exact else None,
    }


def _seconds(taken: dict[str, list[float]]) -> Results:
    ratios = [plain / ours for plain, ours in zip(taken["plain"], taken["ours"], strict=True)]
    medians = {f"{side}_median": median(times) for side, times in taken.items()}
    spread = {"ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return taken | medians | spread


@torch.no_grad()
def _teacher_seconds(world: World) -> float:
    """What ours pays outside its steps: the teacher's pass over all pairs, as seconds a step."""
    batch = world.batch(0)
    tokens_BL = batch.replay_tokens_BL.to(world.device)

    def encode() -> None:
        unit_features(world.clip, batch.replay_images_BCHW, tokens_BL)

    encode()
    return seconds(encode, world.device) / len(tokens_BL) * TASK_PAIRS / TASK_STEPS


def _operations(counted: Results, rate: float, ours_seconds: float, setting: Setting) -> Results:
    floor = counted["ours"] / rate
    return counted | {
        "ratio": counted["plain"] / counted["ours"],
        "rate": rate,
        "rate_of": str(_dtype(setting)).removeprefix("torch."),
        "floor_seconds": floor,
        "floor_reached": floor / ours_seconds,
    }


def _memory(plain: Peak, ours: Peak) -> Results:
    return {
        "imports_gib": ours.imports,
        "plain_gib": plain.steps,
        "ours_gib": ours.steps,
        "ratio": plain.steps / ours.steps,
        "net_ratio": plain.net / ours.net,
    }


def _dtype(setting: Setting) -> torch.dtype:
    return AUTOCAST.get(setting.precision, torch.float32)
