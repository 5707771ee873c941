"""Prompts: literal templates, the pool's order, a draw that is fixed for ever, seeds."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift_core.errors import DataError, SettingsError
from gift_core.prompts import (
    MAX_PAIRS,
    MAX_SEED,
    MAX_TASKS,
    MAX_TRIES,
    draw_prompts,
    format_prompt,
    pair_seed,
    prompt_pool,
    try_seed,
)

words = st.lists(st.sampled_from("abcdefg"), max_size=6)


@pytest.mark.parametrize(
    ("template", "name", "prompt"),
    [
        ("a photo of a {}.", "cat", "a photo of a cat."),
        ("{} {0} {name} %s", "a {} b", "a {} b {0} {name} %s"),
        ("{}", "{__class__}", "{__class__}"),
    ],
)
def test_format_is_literal(template: str, name: str, prompt: str) -> None:
    assert format_prompt(template, name) == prompt


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{name}", ""])
def test_a_template_without_exactly_one_place_is_refused(template: str) -> None:
    with pytest.raises(SettingsError, match="exactly once"):
        format_prompt(template, "cat")


def test_pool_keeps_the_order_first_seen() -> None:
    assert prompt_pool(["b", "a"], ["c", "a"], ["b", "d"]) == ("b", "a", "c", "d")


@given(words, st.lists(words, max_size=3))
def test_pool_against_a_naive_loop(first: list[str], others: list[list[str]]) -> None:
    expected: list[str] = []
    for prompts in [first, *others]:
        for prompt in prompts:
            if prompt not in expected:
                expected.append(prompt)
    assert prompt_pool(first, *others) == tuple(expected)


def test_the_draw_never_changes() -> None:
    """Its base is PCG64's raw stream, which numpy promises to keep.

    Seed 42's first unit floats are 0.773956, 0.438878, 0.858598, 0.697368, 0.094177, 0.975622:
    times ten, rounded down.
    """
    assert draw_prompts("0123456789", 6, 42) == tuple("748609")


def test_a_longer_draw_begins_with_the_shorter() -> None:
    pool = tuple(map(str, range(100)))
    assert draw_prompts(pool, 50, 3)[:20] == draw_prompts(pool, 20, 3)
    assert draw_prompts(pool, 20, 4) != draw_prompts(pool, 20, 3)


def test_the_draw_is_uniform_with_replacement() -> None:
    """10,000 draws of 10: each 1000 +- 30 (one sigma); and a small draw repeats itself."""
    counts = Counter(draw_prompts("0123456789", 10_000, 0))
    assert set(counts) == set("0123456789")
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_a_thousand_of_a_thousand_leave_about_630() -> None:
    """1 - 1/e of the pool, as docs/method.md says of the published runs."""
    distinct = len(set(draw_prompts(tuple(map(str, range(1000))), 1000, 42)))
    assert 600 < distinct < 665


def test_draw_refuses_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="prompt pool: it is empty"):
        draw_prompts((), 5, 0)
    with pytest.raises(SettingsError, match="num_pairs: 0"):
        draw_prompts("ab", 0, 0)
    with pytest.raises(SettingsError, match="seed: -1"):
        draw_prompts("ab", 1, -1)


def test_pair_seed_worked_out_by_hand() -> None:
    """Pair 7, task 3, seed 42: 7 + 200,000 + 420,000,000."""
    assert pair_seed(7, 3, 42) == 420_200_007
    assert pair_seed(0, 1, 0) == 0


@given(
    st.tuples(st.integers(0, 99_999), st.integers(1, 100), st.integers(0, 2**32 - 1)),
    st.tuples(st.integers(0, 99_999), st.integers(1, 100), st.integers(0, 2**32 - 1)),
)
def test_no_two_images_share_a_seed(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    assert (pair_seed(*one) == pair_seed(*other)) == (one == other)
    assert 0 <= pair_seed(*one) < 2**63


@pytest.mark.parametrize(
    ("pair_index", "task_index", "seed", "what"),
    [
        (-1, 1, 0, "pair_index"),
        (100_000, 1, 0, "pair_index"),
        (0, 0, 0, "task_index"),
        (0, 101, 0, "task_index"),
        (0, 1, -1, "seed"),
        (0, 1, 2**32, "seed"),
    ],
)
def test_pair_seed_bounds(pair_index: int, task_index: int, seed: int, what: str) -> None:
    with pytest.raises(SettingsError, match=f"^{what}: "):
        pair_seed(pair_index, task_index, seed)


@given(st.integers(1, 40), st.integers(1, 120), st.integers(0, 99))
def test_a_balanced_draw_takes_every_prompt_equally_often(size: int, count: int, seed: int) -> None:
    pool = tuple(map(str, range(size)))
    counts = Counter(draw_prompts(pool, count, seed, "class-balanced"))
    numbers = [counts[prompt] for prompt in pool]
    assert sum(numbers) == count
    assert max(numbers) - min(numbers) <= 1


@given(st.integers(1, 40), st.integers(0, 99))
def test_a_draw_without_replacement_takes_none_twice(size: int, seed: int) -> None:
    pool = tuple(map(str, range(size)))
    drawn = draw_prompts(pool, size, seed, "without-replacement")
    assert sorted(drawn) == sorted(pool)
    shorter = draw_prompts(pool, max(1, size // 2), seed, "without-replacement")
    assert drawn[: len(shorter)] == shorter


def test_every_place_of_a_draw_without_replacement_is_uniform() -> None:
    """4000 draws of 2 of 4: each of the 12 ordered pairs 333 +- 17 (one sigma)."""
    counts = Counter(draw_prompts("abcd", 2, seed, "without-replacement") for seed in range(4000))
    assert len(counts) == 12
    assert all(abs(count - 333) < 90 for count in counts.values())


def test_more_prompts_than_there_are_cannot_be_drawn_without_replacement() -> None:
    with pytest.raises(SettingsError, match="4 prompts without replacement, but the pool holds 3"):
        draw_prompts("abc", 4, 0, "without-replacement")


def test_no_try_has_the_seed_or_the_noise_of_another_pair() -> None:
    """Torch's CPU generator reads the lower 32 bits; a run's seeds are 10,000,000 in a row."""
    low, high = pair_seed(0, 1, 7), pair_seed(MAX_PAIRS - 1, MAX_TASKS, 7)
    windows = sorted(try_seed(low, number) % 2**32 for number in range(MAX_TRIES))
    ends = [*windows[1:], windows[0] + 2**32]
    assert all(end - start > high - low for start, end in zip(windows, ends, strict=True))
    assert pair_seed(MAX_PAIRS - 1, MAX_TASKS, MAX_SEED) < try_seed(0, 1)
    assert try_seed(pair_seed(MAX_PAIRS - 1, MAX_TASKS, MAX_SEED), MAX_TRIES - 1) < 2**63
    with pytest.raises(SettingsError, match="try: 128"):
        try_seed(0, MAX_TRIES)


def test_torch_reads_the_lower_32_bits_of_a_seed() -> None:
    """What the low part of TRY_STEP is there for."""

    def noise(seed: int) -> list[float]:
        return torch.randn(4, generator=torch.Generator("cpu").manual_seed(seed)).tolist()

    assert noise(5) == noise(5 + 2**56)
    assert noise(5) != noise(try_seed(5, 1))
