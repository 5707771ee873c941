"""Exactly one good picture a prompt: what is bad is made anew, counted, and bounded."""

import io
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gift_core.cleaning import Cleaning
from gift_core.errors import DataError
from gift_core.prompts import TRY_STEP
from gift_core.selection import Selection
from tasks.generation import HOPELESS, Judge, Kept, SynthesisSettings, make_pictures
from tasks.models.generators import DiffusersSettings
from tests.tasks.painter import Painter, painted

PROMPTS = ("star", "ring", "star", "cross", "star")
SEEDS = (100, 101, 102, 103, 104)


def make(
    painter: Painter,
    *,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    judge: Judge | None = None,
    max_tries: int = 4,
    batch_size: int = 2,
    **selection: float,
) -> tuple[list[Kept], Counter[str], list[int]]:
    settings = SynthesisSettings(
        generator=DiffusersSettings(batch_size=batch_size),
        cleaning=Cleaning(max_tries=max_tries),
        selection=Selection(**selection),  # type: ignore[arg-type]
    )
    told: list[int] = []
    kept, rejected = make_pictures(prompts, seeds, settings, painter, judge, told.append)
    return kept, rejected, told


def spoiled(faults: dict[int, str]) -> Callable[[int], str | None]:
    return faults.get


def test_good_pictures_are_made_once_in_batches_and_kept_in_order() -> None:
    painter = Painter()
    kept, rejected, told = make(painter)
    assert [picture.seed for picture in kept] == list(SEEDS)
    for picture in kept:
        image = np.asarray(Image.open(io.BytesIO(picture.image_bytes)))
        np.testing.assert_array_equal(image, painted(picture.seed))
    assert painter.calls == [("star", "ring"), ("star", "cross"), ("star",)]
    assert (rejected, sum(told)) == (Counter(), 5)


def test_bad_pictures_are_made_anew_from_the_next_seed_of_their_prompt() -> None:
    faults = {101: "black", 103: "flat", 103 + TRY_STEP: "unsafe", 104: "black"}
    painter = Painter(spoiled(faults))
    kept, rejected, told = make(painter)
    expected = [100, 101 + TRY_STEP, 102, 103 + 2 * TRY_STEP, 104 + TRY_STEP]
    assert [picture.seed for picture in kept] == expected
    assert rejected == {"black": 2, "flat": 1, "unsafe": 1}
    assert painter.calls[3:] == [("ring", "cross"), ("star",), ("cross",)]  # a round at a time
    assert sum(told) == 5


def test_a_fifth_black_gives_exactly_as_many_good_ones() -> None:
    painter = Painter(lambda seed: "black" if seed * 2654435761 % 2**32 < 2**32 // 5 else None)
    seeds = range(1000, 1200)
    kept, rejected, _ = make(painter, prompts=["star"] * 200, seeds=seeds, max_tries=10)
    assert len(kept) == 200
    assert 20 < rejected["black"] == len(painter.seeds) - 200 < 90
    assert len(set(painter.seeds)) == len(painter.seeds)


def test_what_stays_bad_is_a_sentence_after_so_many_tries() -> None:
    painter = Painter(lambda seed: "black" if seed % TRY_STEP == 101 else None)
    with pytest.raises(DataError, match=r"1 of 5 pairs, such as 'ring', .* 4 tries \(black 4\)"):
        make(painter)
    assert len(painter.seeds) == 5 + 3


def test_a_hopeless_generator_is_given_up_early() -> None:
    painter = Painter(lambda seed: "flat")
    with pytest.raises(DataError, match=r"none of the first 100 pictures is good \(flat 100\)"):
        make(painter, prompts=["star"] * 500, seeds=range(500), batch_size=10)
    assert len(painter.seeds) <= HOPELESS + 10


def test_looking_happens_beside_the_next_batch_and_never_far_behind() -> None:
    """The second batch is asked for while the first is looked at; the third is not, until then."""
    looking, released = threading.Event(), threading.Event()

    class Slow(Painter):
        def generate(self, prompts: Sequence[str], seeds: Sequence[int]):  # type: ignore[no-untyped-def]  # noqa: ANN202
            if len(self.calls) == 1:  # the first batch is with the looker now
                assert looking.wait(5)
                released.set()
            return super().generate(prompts, seeds)

    def judge(images: Sequence[np.ndarray], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        looking.set()
        assert released.wait(5)
        return torch.eye(2)[:1], torch.ones(1)

    painter = Slow()
    make(painter, prompts=["a", "b"], seeds=[1, 2], batch_size=1, judge=judge, min_confidence=0.1)
    assert len(painter.calls) == 2


def levels(images: Sequence[np.ndarray], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """A judge that is the surer, the lighter a picture is; features turn with the level."""
    level_B = torch.tensor([float(image[0, 1, 0]) for image in images])
    angle_B = level_B / 100.0
    return torch.stack([angle_B.cos(), angle_B.sin()], dim=1), level_B / 256.0


def test_the_best_of_the_candidates_is_kept() -> None:
    painter = Painter()
    kept, rejected, _ = make(painter, judge=levels, candidates=3)
    best = [
        max((seed + number * TRY_STEP for number in range(3)), key=lambda each: each % 200)
        for seed in SEEDS
    ]
    assert [picture.seed for picture in kept] == best
    assert rejected == {"outranked": 10}
    assert len(painter.seeds) == 15
    assert [len(call) for call in painter.calls] == [2] * 7 + [1]  # places straddle batches


def test_a_near_duplicate_of_the_same_prompt_is_made_anew() -> None:
    """Levels 101, 103 and 105 are 0.02 apart in angle: a cosine of 0.9998."""
    _, rejected, _ = make(Painter(), judge=levels, max_similarity=0.9999, max_tries=8)
    assert rejected == {}
    kept, rejected, _ = make(
        Painter(), judge=levels, prompts=["a", "a", "b"], seeds=[100, 100, 100], max_similarity=0.99
    )
    assert rejected["duplicate"] >= 1
    assert kept[0].seed == kept[2].seed == 100  # another prompt may look the same
    assert kept[1].seed > TRY_STEP


def test_an_unsure_picture_is_made_anew() -> None:
    kept, rejected, _ = make(Painter(), judge=levels, min_confidence=0.41, max_tries=60)
    assert all((1 + picture.seed % 200) / 256 >= 0.41 for picture in kept)
    assert set(rejected) == {"unsure"}
