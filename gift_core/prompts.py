"""Prompts: the pool of what was known before a task, the draw from it, and a seed an image."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from gift_core.errors import DataError, SettingsError

MAX_PAIRS = 100_000
"""Seeds of one task; more pairs would meet the next task's seeds."""

MAX_TASKS = 100
"""Seeds of one run hold this many tasks."""

MAX_SEED = 2**32 - 1
"""Largest seed of a run; a pair's seed then fits 64 bits."""


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


def draw_prompts(pool: Sequence[str], num_pairs: int, seed: int) -> tuple[str, ...]:
    """Draw `num_pairs` prompts from the pool, uniformly with replacement.

    Built on the raw 64-bit numbers of numpy's PCG64, whose stream numpy keeps fixed between
    releases; a longer draw begins with the shorter one. Raises DataError for an empty pool and
    SettingsError for num_pairs below 1 or a seed out of bounds. Source: docs/method.md, Synthetic
    pairs.
    """
    if not pool:
        raise DataError(
            "prompt pool: it is empty, so nothing can be drawn; name pretraining classes"
        )
    if num_pairs < 1:
        raise SettingsError(f"num_pairs: {num_pairs} is below 1; draw at least one replay pair")
    _check_between("seed", seed, 0, MAX_SEED)
    raw = np.random.PCG64(seed).random_raw(num_pairs)
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return tuple(pool[index] for index in (unit * len(pool)).astype(np.int64).tolist())


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
