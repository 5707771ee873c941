"""Prompts: literal templates, the pool's order, a draw that is fixed for ever, seeds."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_core.errors import DataError, SettingsError
from gift_core.prompts import draw_prompts, format_prompt, pair_seed, prompt_pool

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
