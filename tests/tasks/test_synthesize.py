"""Stage synthesize: the plan is the paper's, shards are kept one by one, black pictures dropped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gift_core.errors import DataError
from gift_core.prompts import draw_prompts
from tasks.models.generators import DiffusersSettings
from tasks.replay import load_pairs
from tasks.sequence import SynthesisSettings
from tasks.store.objects import FolderStore
from tasks.synthesize import PairsPlan, commit_pairs, generate_shard, is_black, plan_pairs
from tests.worlds import GENERATOR

POOL = ("a photo of a red circle.", "a photo of a blue star.", "a photo of a dot pattern.")


class Painter:
    """A generator at the border: one grey level a seed; seeds in `black` give black pictures."""

    identity = "painter@1"

    def __init__(self, black: Sequence[int] = ()) -> None:
        self.black = set(black)
        self.calls: list[tuple[str, ...]] = []

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        self.calls.append(tuple(prompts))
        levels = [0 if seed in self.black else 1 + seed % 250 for seed in seeds]
        return np.stack([np.full((8, 8, 3), level, dtype=np.uint8) for level in levels])


def plan_of(num_pairs: int = 7) -> PairsPlan:
    settings = SynthesisSettings(
        num_pairs=num_pairs,
        pairs_per_shard=3,
        generator=DiffusersSettings(model=str(GENERATOR), batch_size=2),
    )
    return plan_pairs("cold", 2, POOL, settings, "painter@1", seed=7)


def made(store: FolderStore, plan: PairsPlan, painter: Painter) -> list[object]:
    return [generate_shard.fn(store, plan, start, lambda: painter) for start in plan.starts]


def test_plan_draws_prompts_and_gives_each_pair_the_papers_seed() -> None:
    plan = plan_of()
    assert plan.seeds == tuple(70_100_000 + number for number in range(7))
    assert plan.prompts == draw_prompts(POOL, 7, 702)
    assert plan.starts == (0, 3, 6)
    assert plan.shard(6) == (plan.prompts[6:], plan.seeds[6:])


def test_pairs_come_back_in_order_with_prompt_seed_and_origin(tmp_path: Path) -> None:
    store, plan, painter = FolderStore(tmp_path), plan_of(), Painter()
    shards = [produced.manifest for produced in made(store, plan, painter)]
    manifest = commit_pairs.fn(store, plan, shards).manifest
    pairs = load_pairs(store, manifest)
    assert [pair.prompt for pair in pairs] == list(plan.prompts)
    assert [pair.seed for pair in pairs] == list(plan.seeds)
    assert [pair.index for pair in pairs] == list(range(7))
    assert {(pair.task, pair.generator) for pair in pairs} == {("cold", "painter@1")}
    assert (manifest.num_pairs, manifest.num_rejected) == (7, 0)
    assert [len(call) for call in painter.calls] == [2, 1, 2, 1, 1]


def test_black_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    painter = Painter(black=plan.seeds[1:3])
    shards = [produced.manifest for produced in made(store, plan, painter)]
    manifest = commit_pairs.fn(store, plan, shards).manifest
    assert (manifest.num_pairs, manifest.num_rejected) == (5, 2)
    assert [pair.index for pair in load_pairs(store, manifest)] == [0, 3, 4, 5, 6]


def test_a_generator_that_gives_only_black_is_refused(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    shards = [produced.manifest for produced in made(store, plan, Painter(black=plan.seeds))]
    with pytest.raises(DataError, match="0 of 7 generated pictures were not black"):
        commit_pairs.fn(store, plan, shards)


def test_only_the_missing_shard_is_made_again(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    first = made(store, plan, Painter())
    store.delete(f"{first[1].manifest.directory}/manifest.json")
    painter = Painter()
    again = made(store, plan, painter)
    assert [produced.reused for produced in again] == [True, False, True]
    assert sum(len(call) for call in painter.calls) == 3
    assert [p.manifest for p in again] == [p.manifest for p in first]


def test_shard_does_not_depend_on_where_the_generator_lies(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    moved = plan.model_copy(
        update={
            "settings": plan.settings.model_copy(
                update={"generator": DiffusersSettings(model="/elsewhere", batch_size=2)}
            )
        }
    )
    one, other = (generate_shard.fn(store, p, 0, lambda: Painter()) for p in (plan, moved))
    assert other.reused
    assert one.manifest == other.manifest


def test_black_means_no_light_at_all() -> None:
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    assert is_black(picture)
    picture[3, 3, 2] = 1
    assert not is_black(picture)
