"""Prompts: the pool of what was known before a task, the draw from it, and a seed an image."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gift_core.errors import DataError, SettingsError

MAX_PAIRS = 100_000
"""Seeds of one task; more pairs would meet the next task's seeds."""

MAX_TASKS = 100
"""Seeds of one run hold this many tasks."""

MAX_SEED = 2**32 - 1
"""Largest seed of a run; a pair's seed then stays below 2^56."""

MAX_TRIES = 128
"""Pictures that may be made for one pair; their seeds then fit 63 bits, which Parquet keeps."""

TRY_STEP = 2**56 + 2**25
"""From one try of a pair to the next. The high part lies above every pair's seed, so no try has
another pair's. The low part is for torch's CPU generator, which reads the lower 32 bits alone:
there 128 windows, each wider than the 10,000,000 seeds of a run, lie side by side."""

Draw = Literal["uniform", "without-replacement", "class-balanced"]


def format_prompt(template: str, class_name: str) -> str:
    """Replace the template's one `{}`, literally, by the class name.

    Templates are data, never Python format strings: other braces stay as they are. Raises
    SettingsError unless the template holds exactly one `{}`. Source: docs/method.md, Synthetic
    pairs.
    """
    count = template.count("{}")
    if count != 1:
        raise SettingsError(
            f"template: {template!r} holds {count} times {{}} where the class name goes; "
            "write it exactly once, as in 'a photo of a {}.'"
        )
    return template.replace("{}", class_name)


def prompt_pool(
    pretraining_prompts: Iterable[str], *earlier_tasks_prompts: Iterable[str]
) -> tuple[str, ...]:
    """All prompts known before a task, in the order first seen, none twice.

    Source: docs/method.md, Synthetic pairs.
    """
    return tuple(dict.fromkeys(chain(pretraining_prompts, *earlier_tasks_prompts)))


def draw_prompts(
    pool: Sequence[str], num_pairs: int, seed: int, draw: Draw = "uniform"
) -> tuple[str, ...]:
    """Draw `num_pairs` prompts from the pool.

    uniform: with replacement, as the released code (docs/method.md, Synthetic pairs).
    without-replacement: no prompt twice; the pool must hold as many. class-balanced: every prompt
    equally often, and the remainder without replacement, all in a random order.

    Built on the raw 64-bit numbers of numpy's PCG64, whose stream numpy keeps fixed between
    releases; a longer draw (but for class-balanced) begins with the shorter one. Raises DataError
    for an empty pool and SettingsError for num_pairs out of bounds or a seed out of bounds.
    """
    if not pool:
        raise DataError(
            "prompt pool: it is empty, so nothing can be drawn; name pretraining classes"
        )
    if num_pairs < 1:
        raise SettingsError(f"num_pairs: {num_pairs} is below 1; draw at least one replay pair")
    if draw == "without-replacement" and num_pairs > len(pool):
        raise SettingsError(
            f"num_pairs: {num_pairs} prompts without replacement, but the pool holds {len(pool)}; "
            "lower it, or draw uniform or class-balanced"
        )
    _check_between("seed", seed, 0, MAX_SEED)
    unit = _unit_numbers(seed, num_pairs + len(pool))
    if draw == "uniform":
        chosen = (unit[:num_pairs] * len(pool)).astype(np.int64).tolist()
    elif draw == "without-replacement":
        chosen = _shuffled(range(len(pool)), unit, num_pairs)
    else:
        rounds, rest = divmod(num_pairs, len(pool))
        even = [*range(len(pool))] * rounds + _shuffled(range(len(pool)), unit, rest)
        chosen = _shuffled(even, unit[rest:], num_pairs)
    return tuple(pool[index] for index in chosen)


def _unit_numbers(seed: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), the same for ever."""
    raw = np.random.PCG64(seed).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _shuffled(items: Sequence[int], unit: NDArray[np.float64], count: int) -> list[int]:
    """Take the first `count` items of a random order (Fisher and Yates), one number each."""
    order = list(items)
    for place in range(count):
        other = place + int(unit[place] * (len(order) - place))
        order[place], order[other] = order[other], order[place]
    return order[:count]


def try_seed(seed: int, number: int) -> int:
    """Compute the seed of a pair's picture number `number`: 0 is the pair's own (`pair_seed`).

    No other pair, of this run or another, has it, and within a run no two tries share their noise.
    Raises SettingsError when the number is out of bounds.
    """
    _check_between("try", number, 0, MAX_TRIES - 1)
    return seed + number * TRY_STEP


def pair_seed(pair_index: int, task_index: int, seed: int) -> int:
    """Compute the seed of one generated image: j + 100000 * (i - 1) + 10000000 * seed.

    Pair j counts from 0, task i from 1, so no two images of a run or of two seeds share one.
    Raises SettingsError when one of them is out of bounds. Source: docs/method.md, Synthetic
    pairs.
    """
    _check_between("pair_index", pair_index, 0, MAX_PAIRS - 1)
    _check_between("task_index", task_index, 1, MAX_TASKS)
    _check_between("seed", seed, 0, MAX_SEED)
    return pair_index + MAX_PAIRS * (task_index - 1) + MAX_PAIRS * MAX_TASKS * seed


def _check_between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name}: {value} is not between {low} and {high}; choose one there")
