"""The training stages on real models: what they commit, what they skip, what opens them again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tasks.check import Plan, check_sequence
from tasks.estimate_fisher import FISHER, fisher_of_model
from tasks.evaluate import evaluate
from tasks.finetune import finetune
from tasks.images import decode_rgb
from tasks.manifests import ModelManifest, PairsManifest, Retrieval
from tasks.pretrained import take_pretrained
from tasks.replay import load_pairs
from tasks.sequence import ExecutionSettings
from tasks.store.checkpoints import load_tensors
from tasks.store.history import read_history
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import Produced, fetch_output
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.worlds import tiny_sequence


@dataclass
class World:
    store: ObjectStore
    plan: Plan
    parent: ModelManifest
    pairs: PairsManifest

    @property
    def execution(self) -> ExecutionSettings:
        return self.plan.sequence.execution

    def finetune(self, store: ObjectStore, seed: int = 7) -> Produced[ModelManifest]:
        task = self.plan.tasks[0]
        return finetune.fn(store, task, seed, self.parent, self.pairs, self.execution)


@pytest.fixture(scope="module")
def world(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    sequence = tiny_sequence(tiny_data, store.url)
    plan = check_sequence(sequence, store)
    parent = take_pretrained.fn(store, sequence.model, plan.model_identity).manifest
    pool = plan.prompt_pool(plan.tasks[0])
    assert plan.generator_identity is not None
    pairs_plan = plan_pairs(
        "warm", 1, pool, sequence.synthesis, plan.generator_identity, sequence.seed
    )
    generator = LazyGenerator(sequence.synthesis)
    shards = [
        generate_shard.fn(store, pairs_plan, start, generator)().manifest
        for start in pairs_plan.starts
    ]
    return World(store, plan, parent, commit_pairs.fn(store, pairs_plan, shards).manifest)


@pytest.fixture(scope="module")
def learnt(world: World) -> ModelManifest:
    produced = world.finetune(world.store)
    assert not produced.reused
    return produced.manifest


def weights(world: World, manifest: ModelManifest, folder: Path) -> dict[str, torch.Tensor]:
    fetch_output(world.store, manifest, folder)
    return load_tensors(folder / "open_clip_model.safetensors")


def test_finetune_moves_the_weights_but_not_the_scale(
    world: World, learnt: ModelManifest, tmp_path: Path
) -> None:
    before = weights(world, world.parent, tmp_path / "before")
    after = weights(world, learnt, tmp_path / "after")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before) - {"logit_scale"}
    assert (learnt.parent, learnt.task, learnt.num_steps) == (world.parent.digest, "warm", 3)


def test_finetune_keeps_a_history_of_every_step(world: World, learnt: ModelManifest) -> None:
    history = read_history(world.store, learnt)
    assert history["step"] == [1, 2, 3]
    assert {len(column) for column in history.values()} == {3}
    assert all(value > 0 for value in history["distillation_loss"])
    assert history["learning_rate"][0] == pytest.approx(1e-4)
    assert history["consolidation_loss"][0] == 0.0
    assert history["consolidation_loss"][2] > 0.0


def test_finetune_is_a_function_of_its_inputs(
    world: World, learnt: ModelManifest, tmp_path: Path
) -> None:
    elsewhere = FolderStore(tmp_path)
    for path in world.store.list("outputs"):
        if "/finetune/" not in path:
            elsewhere.replace_bytes(path, world.store.read_bytes(path))
    torch.manual_seed(123)
    again = world.finetune(elsewhere)
    assert not again.reused
    assert again.manifest == learnt
    other_seed = world.finetune(elsewhere, seed=8)
    assert other_seed.manifest.files != learnt.files


def test_stages_are_skipped_when_their_output_stands(
    world: World, learnt: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.finetune.fetch_output", None)
    produced = world.finetune(world.store)
    assert produced.reused
    assert produced.manifest == learnt


def test_plain_finetuning_has_no_replay_numbers(world: World) -> None:
    task = world.plan.tasks[0]
    plain = task.model_copy(
        update={
            "finetune": task.finetune.model_copy(
                update={"objective": task.finetune.objective.for_method("finetune")}
            )
        }
    )
    manifest = finetune.fn(world.store, plain, 7, world.parent, None, world.execution).manifest
    history = read_history(world.store, manifest)
    assert history["distillation_loss"] == [0.0, 0.0, 0.0]
    assert history["replay_accuracy"] == [None, None, None]
    assert "pairs" not in manifest.inputs


def test_checkpoint_opens_in_open_clip(world: World, learnt: ModelManifest, tmp_path: Path) -> None:
    fetch_output(world.store, learnt, tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    stored = load_tensors(tmp_path / "open_clip_model.safetensors")
    assert torch.equal(model.visual.proj, stored["visual.proj"])
    image = preprocess(Image.new("RGB", (32, 32)))[None]
    assert model.encode_image(image).shape == model.encode_text(tokenizer(["a red star."])).shape


def test_fisher_covers_every_weight_and_says_what_moved(
    world: World, learnt: ModelManifest, tmp_path: Path
) -> None:
    sequence = world.plan.sequence
    arguments = (world.store, learnt, world.parent, world.pairs)
    manifest = fisher_of_model.fn(
        *arguments, sequence.objective, sequence.fisher, world.execution.cache
    ).manifest
    fetch_output(world.store, manifest, tmp_path)
    fisher = load_tensors(tmp_path / FISHER)
    after = weights(world, learnt, tmp_path / "after")
    assert set(fisher) == set(after) - {"logit_scale"}
    assert all(fisher[name].shape == after[name].shape for name in fisher)
    assert all((tensor >= 0).all() for tensor in fisher.values())
    before = weights(world, world.parent, tmp_path / "before")
    moved = {block.block: block for block in manifest.drift}
    expected = (after["visual.proj"] - before["visual.proj"]).double().norm()
    assert moved["visual.proj"].distance == pytest.approx(float(expected))
    assert sum(block.num_parameters for block in manifest.drift) == sum(
        tensor.numel() for tensor in fisher.values()
    )


def test_evaluation_counts_what_open_clip_alone_would_count(world: World, tmp_path: Path) -> None:
    plan = world.plan
    row = evaluate.fn(
        world.store,
        world.parent,
        plan.tasks,
        plan.panel,
        plan.sequence.evaluation,
        world.execution.cache,
    ).manifest
    assert row.after_task is None
    assert [score.data_set for score in (*row.tasks, *row.panel)] == ["warm", "cold", "panel"]
    fetch_output(world.store, world.parent, tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    model.eval()
    for score, task in zip(row.tasks, plan.tasks, strict=True):
        split = task.data.open_split("test")
        images = torch.stack([preprocess(split.image(index)) for index in range(len(split))])
        rows = []
        for name in task.class_names:
            texts = tokenizer([template.replace("{}", name) for template in task.templates])
            with torch.no_grad():
                each = torch.nn.functional.normalize(model.encode_text(texts), dim=-1)
            rows.append(torch.nn.functional.normalize(each.mean(dim=0), dim=-1))
        with torch.no_grad():
            features = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
        predicted = (features @ torch.stack(rows).T).argmax(dim=1).numpy()
        assert score.num_correct == int((predicted == split.labels_N).sum())
        assert score.num_images == len(split) == 6
    assert np.isclose(row.tasks[0].percent, 100 * row.tasks[0].num_correct / 6)


def test_a_row_tells_what_the_model_finds_among_its_pairs(
    world: World, learnt: ModelManifest, tmp_path: Path
) -> None:
    """Counted by open_clip alone: equal prompts are one prompt, and all its pictures are right."""
    settings = world.plan.sequence.evaluation, world.execution.cache
    arguments = world.store, learnt, world.plan.tasks[:1], (), *settings
    row = evaluate.fn(*arguments, world.pairs).manifest
    assert row.inputs["pairs"] == world.pairs.digest
    assert evaluate.fn(*arguments).manifest.retrieval is None
    fetch_output(world.store, learnt, tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    model.eval()
    pairs = load_pairs(world.store, world.pairs)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    assert len(prompts) < len(pairs), "some prompts are equal"
    pictures = [preprocess(decode_rgb(pair.image_bytes, "a pair")) for pair in pairs]
    with torch.no_grad():
        images = torch.nn.functional.normalize(model.encode_image(torch.stack(pictures)), dim=1)
        texts = torch.nn.functional.normalize(model.encode_text(tokenizer(prompts)), dim=1)
    cosines = images @ texts.T
    found = [prompts[int(best)] for best in cosines.argmax(dim=1)]
    of_prompts = [pairs[int(best)].prompt for best in cosines.argmax(dim=0)]
    assert row.retrieval == Retrieval(
        num_pictures=len(pairs),
        num_pictures_right=sum(a == b.prompt for a, b in zip(found, pairs, strict=True)),
        num_prompts=len(prompts),
        num_prompts_right=sum(a == b for a, b in zip(of_prompts, prompts, strict=True)),
    )
