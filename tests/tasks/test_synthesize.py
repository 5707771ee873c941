"""Stage synthesize: the plan is the paper's, shards are kept one by one, bad pictures replaced."""

from pathlib import Path

import pytest

from gift_core.cleaning import Cleaning
from gift_core.errors import DataError, SettingsError
from gift_core.prompts import TRY_STEP, draw_prompts
from gift_core.selection import Selection
from tasks.generation import SynthesisSettings
from tasks.models.generators import DiffusersSettings
from tasks.replay import load_pairs
from tasks.store.objects import FolderStore
from tasks.synthesize import PairsPlan, commit_pairs, generate_shard, plan_pairs
from tests.tasks.painter import Painter
from tests.worlds import GENERATOR

KEY_OF_0_1_0 = "dd162d329a70b599b1f0ef562a47b3e144b37c5dff7c3af5b246283b0d68094e"
"""Of the first shard of `plan_of()`, computed by version 0.1.0."""

POOL = ("a photo of a red circle.", "a photo of a blue star.", "a photo of a dot pattern.")


def plan_of(num_pairs: int = 7) -> PairsPlan:
    settings = SynthesisSettings(
        num_pairs=num_pairs,
        pairs_per_shard=3,
        generator=DiffusersSettings(model=str(GENERATOR), batch_size=2),
    )
    return plan_pairs("cold", 2, POOL, settings, "painter@1", seed=7)


def made(store: FolderStore, plan: PairsPlan, painter: Painter) -> list[object]:
    return [generate_shard.fn(store, plan, start, lambda: painter)() for start in plan.starts]


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


def test_black_pictures_are_replaced_and_counted_by_reason(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    faults = {plan.seeds[1]: "black", plan.seeds[2]: "black", plan.seeds[5]: "unsafe"}
    shards = [produced.manifest for produced in made(store, plan, Painter(faults.get))]
    manifest = commit_pairs.fn(store, plan, shards).manifest
    assert (manifest.num_pairs, manifest.num_rejected) == (7, 3)
    assert manifest.rejected == {"black": 2, "unsafe": 1}
    assert manifest.rejects_in_words == "3 pictures replaced (black 2, unsafe 1)"
    pairs = load_pairs(store, manifest)
    assert [pair.index for pair in pairs] == list(range(7))
    changed = {plan.seeds[n]: plan.seeds[n] + TRY_STEP for n in (1, 2, 5)}
    assert [pair.seed for pair in pairs] == [changed.get(seed, seed) for seed in plan.seeds]


def test_a_generator_that_gives_only_black_is_refused_with_its_task(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    with pytest.raises(DataError, match=r"Replay pairs of cold from 0: 3 of 3 pairs, .*black 30"):
        made(store, plan, Painter(lambda seed: "black"))
    assert store.list("outputs") == []


def test_another_generator_than_the_plans_is_refused(tmp_path: Path) -> None:
    painter = Painter()
    painter.identity = "painter@2"
    with pytest.raises(SettingsError, match="has painter@2 where the plan was made for painter@1"):
        made(FolderStore(tmp_path), plan_of(), painter)


def test_a_short_shard_of_before_is_named(tmp_path: Path) -> None:
    """Version 0.1.0 dropped black pictures and committed what was left."""
    store, plan = FolderStore(tmp_path), plan_of()
    shards = [produced.manifest for produced in made(store, plan, Painter())]
    shards[1] = shards[1].model_copy(update={"num_pairs": 2, "num_rejected": 1})
    with pytest.raises(DataError, match="holds 2 of 3 pairs; remove it from the store"):
        commit_pairs.fn(store, plan, shards)


def test_one_pair_is_refused(tmp_path: Path) -> None:
    store, plan = FolderStore(tmp_path), plan_of(num_pairs=1)
    shards = [produced.manifest for produced in made(store, plan, Painter())]
    with pytest.raises(DataError, match=r"raise synthesis\.num_pairs"):
        commit_pairs.fn(store, plan, shards)


def test_settings_that_came_later_leave_outputs_their_keys(tmp_path: Path) -> None:
    """These are what version 0.1.0 hashed, and the manifests that it wrote: no new name in them."""
    store, plan = FolderStore(tmp_path), plan_of()
    shard = made(store, plan, Painter())[0].manifest
    assert shard.settings.keys() == {"generator", "task", "start", "prompts", "seeds"}
    assert shard.settings["generator"].keys() == {
        "kind", "num_steps", "guidance_scale", "image_size", "solver", "batch_size",
    }  # fmt: skip
    assert "rejected" not in shard.model_dump(mode="json")
    assert shard.key == KEY_OF_0_1_0


@pytest.mark.parametrize(
    "changes",
    [
        {"cleaning": Cleaning(max_tries=11)},
        {"generator": DiffusersSettings(model=str(GENERATOR), batch_size=2, channels_last=True)},
        {"generator": DiffusersSettings(model=str(GENERATOR), batch_size=2, precision="bf16")},
    ],
)
def test_settings_that_change_pictures_change_the_key(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    store, plan = FolderStore(tmp_path), plan_of()
    other = plan.model_copy(update={"settings": plan.settings.model_copy(update=changes)})
    one, two = (generate_shard.fn(store, each, 0, Painter)() for each in (plan, other))
    assert not two.reused
    assert one.manifest.key != two.manifest.key


def test_a_draw_and_a_teacher_are_settled_with_the_plan() -> None:
    settings = plan_of().settings.model_copy(update={"draw": "class-balanced"})
    plan = plan_pairs("cold", 2, POOL, settings, "painter@1", seed=7)
    assert sorted(plan.prompts.count(prompt) for prompt in POOL) == [2, 2, 3]
    asking = settings.model_copy(update={"selection": Selection(candidates=2)})
    with pytest.raises(SettingsError, match="there is no model to ask"):
        plan_pairs("cold", 2, POOL, asking, "painter@1", seed=7)


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
    one, other = (generate_shard.fn(store, p, 0, lambda: Painter())() for p in (plan, moved))
    assert other.reused
    assert one.manifest == other.manifest
