"""Models of every family with a text tower learn the miniature's first task by the same stages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.miniature.data_sets import CLASS_NAMES, TEMPLATES_OF, build_split
from gift_core.features import trainable_parameters
from tasks.check import check_sequence
from tasks.evaluate import evaluate
from tasks.finetune import finetune
from tasks.manifests import ModelManifest, ScoresManifest
from tasks.models.encoders import load_encoder
from tasks.pretrained import take_pretrained
from tasks.sequence import SequenceSettings
from tasks.store.checkpoints import load_tensors
from tasks.store.history import read_history
from tasks.store.objects import FolderStore
from tasks.store.outputs import fetch_output
from tasks.store.shards import ReplayPair, write_shard
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.tasks.models.families import write_family
from tests.worlds import png, write_split

CHANCE = 10.0  # percent: ten digits
SHOWN = ("red star", "green ring", "blue cross", "pink heart")
PROMPTS = tuple(f"a photo of a {name}." for name in SHOWN)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's first task, a third of it, and drawn pictures in place of a generator's."""
    folder = tmp_path_factory.mktemp("families")
    for split, number in (("train", 400), ("validation", 10), ("test", 200)):
        pictures, labels = build_split("digits", split)
        chosen = np.linspace(0, len(labels) - 1, number).astype(int)
        shown = [png(pictures[row]) for row in chosen]
        write_split(
            folder / "digits" / f"{split}.parquet", shown, labels[chosen], CLASS_NAMES["digits"]
        )
    pictures, labels = build_split("pretraining", "test")
    names = CLASS_NAMES["pretraining"]
    pairs = [
        ReplayPair(png(picture), f"a photo of a {names[label]}.", n, "drawn", "digits", n)
        for n, (picture, label) in enumerate(zip(pictures, labels, strict=True))
        if names[label] in SHOWN
    ]
    write_shard(folder / "pairs.parquet", pairs)
    return folder


def sequence_of(world: Path, family: str, place: Path, **changes: object) -> SequenceSettings:
    model = write_family(family, place / "model")
    return SequenceSettings.model_validate(
        {
            "name": "families",
            "model": model,
            "pretraining": {"class_names": SHOWN},
            "tasks": [
                {
                    "name": "digits",
                    "data": {"kind": "parquet", "path": str(world / "digits")},
                    "class_names": CLASS_NAMES["digits"],
                    "templates": TEMPLATES_OF["digits"],
                }
            ],
            "synthesis": {
                "num_pairs": 24,
                "pairs_per_shard": 24,
                "generator": {"kind": "recorded", "path": str(world / "pairs.parquet")},
            },
            "finetune": {
                "objective": {"consolidation": {"weight": 0.2}},
                "num_steps": 40,
                "warmup_steps": 4,
                "batch_size": 32,
                "learning_rate": 1e-3,  # as the miniature's own sequence
            }
            | changes,
            "evaluation": {"batch_size": 100},
            "execution": {
                "workers": 0,
                "checkpoint_every": 0,
                "tensorboard": None,
                "cache": str(place / "cache"),
            },
            "store": {"url": str(place / "store")},
        }
    )


def learnt(sequence: SequenceSettings) -> tuple[FolderStore, ModelManifest, ModelManifest, float]:
    """Learn the one task: the store, the model before, the new one, and its accuracy in percent."""
    store = FolderStore(Path(sequence.store.url))
    plan = check_sequence(sequence, store)
    task, generator = plan.tasks[0], LazyGenerator(sequence.synthesis)
    assert plan.generator_identity is not None
    parent = take_pretrained.fn(store, sequence.model, plan.model_identity).manifest
    pairs_plan = plan_pairs(
        task.name, 1, plan.prompt_pool(task), sequence.synthesis, plan.generator_identity, 0
    )
    shards = [
        generate_shard.fn(store, pairs_plan, start, generator)().manifest
        for start in pairs_plan.starts
    ]
    pairs = commit_pairs.fn(store, pairs_plan, shards).manifest
    model = finetune.fn(store, task, 0, parent, pairs, sequence.execution).manifest
    cache = sequence.execution.cache
    row = evaluate.fn(store, model, [task], [], sequence.evaluation, cache)
    scores: ScoresManifest = row.manifest
    return store, parent, model, 100.0 * scores.tasks[0].num_correct / scores.tasks[0].num_images


def weights(store: FolderStore, manifest: ModelManifest, folder: Path) -> dict[str, torch.Tensor]:
    fetch_output(store, manifest, folder)
    return load_tensors(folder / "open_clip_model.safetensors")


@pytest.mark.parametrize("family", ["CustomTextCLIP", "SigLIP", "MobileCLIP", "HF text"])
def test_a_family_learns_the_first_task(family: str, world: Path, tmp_path: Path) -> None:
    """By the same step; what batch normalisation has counted stays as it was."""
    store, parent, model, accuracy = learnt(sequence_of(world, family, tmp_path))
    history = read_history(store, model)
    assert np.mean(history["task_loss"][-10:]) < 0.85 * np.mean(history["task_loss"][:3])
    assert accuracy > 2 * CHANCE
    assert min(history["distillation_loss"]) > 0.0
    before, after = (
        weights(store, each, tmp_path / each.stage / "files") for each in (parent, model)
    )
    assert before.keys() == after.keys()
    for name in before:
        frozen = name.startswith("logit_") or "running_" in name
        assert not frozen or torch.equal(before[name], after[name]), name
    assert any("running_mean" in name for name in before) == (family == "MobileCLIP")


def test_low_rank_updates_of_one_tower_learn_it_too(world: Path, tmp_path: Path) -> None:
    """They end in the weights: the model is a plain one of open_clip, its other tower untouched."""
    trained = {"image_tower": True, "text_tower": False, "lora": {"rank": 4, "alpha": 16}}
    changes = {"trained": trained, "learning_rate": 5e-3}
    sequence = sequence_of(world, "CLIP", tmp_path, **changes)
    store, parent, model, accuracy = learnt(sequence)
    assert accuracy > 2 * CHANCE
    before, after = (
        weights(store, each, tmp_path / each.stage / "files") for each in (parent, model)
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"visual.transformer.resblocks.{block}.{layer}.{kind}"
        for block in range(4)
        for layer, kind in (
            ("attn", "in_proj_weight"),
            ("attn.out_proj", "weight"),
            ("mlp.c_fc", "weight"),
            ("mlp.c_proj", "weight"),
        )
    }
    assert load_encoder(tmp_path / model.stage / "files", torch.device("cpu")).model.packs_texts


def test_a_captioning_model_gives_its_features_and_writes_no_captions(tmp_path: Path) -> None:
    write_family("CoCa", tmp_path)
    towers = load_encoder(tmp_path, torch.device("cpu")).model.eval()
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(4, 90, (2, 14))
    torch.testing.assert_close(towers.encode_image(images), towers.clip.encode_image(images))
    torch.testing.assert_close(towers.encode_text(tokens), towers.clip.encode_text(tokens))
    learning = trainable_parameters(towers)
    assert {name.partition(".")[0] for name in learning} == {"visual", "text"}
