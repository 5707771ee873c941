"""Stage adapt and what it is for: an earlier task's prompts are drawn by the adapted generator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from gift_core.errors import SettingsError
from tasks.adapt import adapt_generator, planned_adapter, read_history
from tasks.adapter_page import adapted_words, adapter_markdown
from tasks.adapters import adapter_inputs, by_adapter
from tasks.check import Plan, check_sequence
from tasks.generation import SynthesisSettings
from tasks.manifests import AdapterManifest, ModelManifest, ShardManifest
from tasks.models.adaptation import WEIGHTS, AdaptationSettings
from tasks.models.generators import Generator
from tasks.pairs_card import card_of
from tasks.pretrained import take_pretrained
from tasks.replay import load_pairs
from tasks.sequence import SequenceSettings
from tasks.store.inventory import take_inventory
from tasks.store.objects import FolderStore
from tasks.store.outputs import Produced
from tasks.store.verify import verify_store
from tasks.synthesize import (
    LazyGenerator,
    PairsPlan,
    commit_pairs,
    generate_shard,
    plan_pairs,
    planned_shard,
)
from tests.worlds import tiny_sequence

ADAPTATION = AdaptationSettings(num_images=4, rank=2, num_steps=6, batch_size=2, learning_rate=1e-2)
WARM = ("a photo of a red square.", "a photo of a green square.")


def adapted(data: Path, store: str, **changes: object) -> SequenceSettings:
    sequence = tiny_sequence(data, store, **changes)
    synthesis = sequence.synthesis.model_copy(update={"adaptation": ADAPTATION})
    return sequence.model_copy(update={"synthesis": synthesis})


@dataclass
class World:
    store: FolderStore
    plan: Plan
    model: ModelManifest
    adapter: AdapterManifest

    @property
    def identity(self) -> str:
        return str(self.plan.generator_identity)

    @property
    def synthesis(self) -> SynthesisSettings:
        return self.plan.sequence.synthesis

    def adapt(self, store: FolderStore, seed: int = 7) -> Produced[AdapterManifest]:
        given = self.plan.tasks[0], self.model, self.synthesis, self.identity, seed
        return adapt_generator.fn(store, *given)

    def pairs_plan(self, *adapters: AdapterManifest) -> PairsPlan:
        """Of the second task, whose pool has the first one's prompts."""
        task = self.plan.tasks[1]
        pool = self.plan.prompt_pool(task)
        synthesis = self.synthesis.model_copy(update={"num_pairs": 8})
        given = task.name, task.index, pool, synthesis, self.identity, 7
        return plan_pairs(*given, adapters=adapters)


@pytest.fixture(scope="module")
def world(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    store = FolderStore(tmp_path_factory.mktemp("adapt") / "store")
    plan = check_sequence(adapted(tiny_data, store.url), store)
    model = take_pretrained.fn(store, plan.sequence.model, plan.model_identity).manifest
    given = plan.tasks[0], model, plan.sequence.synthesis, str(plan.generator_identity), 7
    return World(store, plan, model, adapt_generator.fn(store, *given).manifest)


def test_the_images_that_the_model_is_surest_of_are_learnt_and_told(world: World) -> None:
    history = read_history(world.store, world.adapter)
    assert (len(history["loss"]), world.adapter.num_images) == (6, 4)
    labels = world.plan.tasks[0].data.open_split("train").labels_N[history["image"]]
    assert sorted(labels.tolist()) == [0, 0, 1, 1], "evenly over the classes"
    assert all(0.0 < sure <= 1.0 for sure in history["confidence"])
    assert world.adapter.prompts == WARM
    told = adapter_markdown(world.adapter, history)
    assert "6 steps on 4 training images" in told


def test_an_adapter_is_a_function_of_its_inputs_and_found_the_second_time(
    world: World, tmp_path: Path
) -> None:
    assert world.adapt(world.store) == Produced(world.adapter, reused=True)
    elsewhere = FolderStore(tmp_path)
    for path in world.store.list("outputs/pretrained"):
        elsewhere.replace_bytes(path, world.store.read_bytes(path))
    again = world.adapt(elsewhere)
    assert again == Produced(world.adapter, reused=False)


def test_its_key_knows_what_decides_it_and_nothing_else(world: World) -> None:
    def key(synthesis: SynthesisSettings, seed: int = 7) -> str:
        given = world.plan.tasks[0], world.model, synthesis, world.identity
        return planned_adapter(*given, seed).key

    own, generator = world.synthesis, world.synthesis.generator
    assert key(own) == world.adapter.key
    faster = generator.model_copy(update={"num_steps": 4, "batch_size": 9, "guidance_scale": 1.0})
    assert key(own.model_copy(update={"generator": faster, "num_pairs": 5})) == world.adapter.key
    larger = generator.model_copy(update={"image_size": 64})
    others = [
        key(own, seed=8),
        key(own.model_copy(update={"generator": larger})),
        key(own.model_copy(update={"adaptation": ADAPTATION.model_copy(update={"rank": 3})})),
    ]
    assert len({world.adapter.key, *others}) == 4


def test_a_worker_with_another_generator_is_refused(world: World, tmp_path: Path) -> None:
    for path in world.store.list("outputs/pretrained"):
        FolderStore(tmp_path).replace_bytes(path, world.store.read_bytes(path))
    with pytest.raises(SettingsError, match="this worker has generator@"):
        adapt_generator.fn(
            FolderStore(tmp_path), world.plan.tasks[0], world.model, world.synthesis, "other@1", 7
        )


def shards_of(
    store: FolderStore, plan: PairsPlan, generator: Callable[..., Generator]
) -> list[ShardManifest]:
    return [generate_shard.fn(store, plan, start, generator)().manifest for start in plan.starts]


def made(
    store: FolderStore, plan: PairsPlan, generator: Callable[..., Generator], order: Sequence[int]
) -> list[bytes]:
    for start in order:
        generate_shard.fn(store, plan, start, generator)()
    shards = shards_of(store, plan, generator)
    return [store.read_bytes(shard.files[0].path) for shard in shards]


def test_one_run_and_several_in_any_order_give_the_same_shards(
    world: World, tmp_path: Path
) -> None:
    """The adapters are other stores' copies: a run of its own brings its own from there."""
    plan = world.pairs_plan(world.adapter)
    assert {len(places) for _, places in plan.by_adapter(plan.prompts)} != {8}, "both make some"
    one, several = FolderStore(tmp_path / "one"), FolderStore(tmp_path / "several")
    for path in world.store.list("outputs/adapt"):
        for store in (one, several):
            store.replace_bytes(path, world.store.read_bytes(path))
    alone = made(one, plan, LazyGenerator(plan.settings, one), plan.starts)
    runs = [LazyGenerator(plan.settings, several) for _ in plan.starts]
    for start, run in zip(reversed(plan.starts), runs, strict=True):
        made(several, plan, run, [start])
    assert made(several, plan, runs[0], ()) == alone


def test_the_adapted_pairs_alone_are_others_and_are_told(world: World, tmp_path: Path) -> None:
    plan, plain = world.pairs_plan(world.adapter), world.pairs_plan()
    loader = LazyGenerator(plan.settings, world.store)
    shards = shards_of(world.store, plan, loader)
    pairs = commit_pairs.fn(world.store, plan, shards).manifest
    elsewhere = FolderStore(tmp_path)
    plain_pairs = commit_pairs.fn(elsewhere, plain, shards_of(elsewhere, plain, loader)).manifest
    before, after = load_pairs(elsewhere, plain_pairs), load_pairs(world.store, pairs)
    changed = [a.image_bytes != b.image_bytes for a, b in zip(before, after, strict=True)]
    assert changed == [pair.prompt in WARM for pair in after]
    assert [pair.seed for pair in after] == [pair.seed for pair in before]
    own = f"{world.identity}+warm@{world.adapter.digest[:16]}"
    assert {pair.generator for pair in after} == {world.identity, own}
    assert (pairs.adapted, plain_pairs.adapted) == ({"warm": sum(changed)}, {})
    assert "adapted" not in plain_pairs.model_dump(mode="json")
    assert "adaptation" not in pairs.settings, "how it was adapted stands with the adapter"
    card = card_of(pairs, {WARM[0]: 1}, "none")  # type: ignore[arg-type]
    assert f"learnt on real training images of the task: warm {sum(changed)}" in card
    assert adapted_words(pairs).endswith(f"their prompt: warm {sum(changed)}.")
    assert adapted_words(plain_pairs) == ""


def test_what_an_adapter_makes_none_of_keeps_its_key(world: World) -> None:
    """So a run with and one without adaptation share all that does not differ."""
    plan, plain = world.pairs_plan(world.adapter), world.pairs_plan()
    shared = [planned_shard(plan, s).key == planned_shard(plain, s).key for s in plan.starts]
    assert shared == [not set(plan.shard(start)[0]) & set(WARM) for start in plan.starts]


def test_a_prompt_of_two_tasks_is_the_latest_ones(world: World) -> None:
    first = world.adapter
    second = first.model_copy(update={"task": "cold", "prompts": ("c", WARM[1])})
    prompts = ["c", WARM[0], "plain", WARM[1], "c"]
    assert by_adapter([first, second], prompts) == [(None, [2]), (first, [1]), (second, [0, 3, 4])]
    assert by_adapter([], prompts) == [(None, [0, 1, 2, 3, 4])]
    assert adapter_inputs([first, second], ["c"]) == {"adapter-00": second.digest}


def test_the_stores_upkeep_reaches_an_adapter_through_the_pairs(world: World) -> None:
    plan = world.pairs_plan(world.adapter)
    loader = LazyGenerator(plan.settings, world.store)
    shards = shards_of(world.store, plan, loader)
    pairs = commit_pairs.fn(world.store, plan, shards).manifest
    inventory = take_inventory(world.store)
    reached = inventory.reached_from([f"synthesize/{pairs.key}"])
    assert {f"adapt/{world.adapter.key}", f"pretrained/{world.model.key}"} <= reached
    path = world.adapter.file(WEIGHTS).path
    good = world.store.read_bytes(path)
    world.store.replace_bytes(path, b"altered" + good[7:])
    try:
        damaged = {damage.path for damage in verify_store(world.store).damages}
    finally:
        world.store.replace_bytes(path, good)
    assert path in damaged


def test_what_cannot_be_adapted_is_refused_before_any_work(tmp_path: Path, tiny_data: Path) -> None:
    from tests.tasks.models.tiny_pipelines import save

    sequence = adapted(tiny_data, str(tmp_path / "store"))
    generator = sequence.synthesis.generator.model_copy(
        update={"model": str(save("pixart", tmp_path / "pixart"))}
    )
    synthesis = sequence.synthesis.model_copy(update={"generator": generator})
    with pytest.raises(SettingsError, match=r"synthesis\.adaptation: .*pixart has no UNet"):
        check_sequence(
            sequence.model_copy(update={"synthesis": synthesis}), FolderStore(tmp_path / "store")
        )
    with pytest.raises(ValidationError, match="which prompts: pretraining never draws"):
        SynthesisSettings(adaptation=ADAPTATION, prompts="pretraining")


def test_off_it_is_written_nowhere() -> None:
    assert "adaptation" not in SynthesisSettings().model_dump()
