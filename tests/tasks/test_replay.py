"""Replay sets: the teacher's features asked once are those that it would give in every step."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from gift_core.features import encode_images, encode_texts
from tasks.manifests import PairsManifest
from tasks.models.encoders import Encoder, export_pretrained, load_encoder
from tasks.models.generators import Pictures
from tasks.models.starting_model import ModelSettings
from tasks.replay import ReplaySet, images_key, replay_set
from tasks.store.objects import FolderStore
from tasks.synthesize import commit_pairs, generate_shard
from tests.tasks.painter import Painter
from tests.tasks.test_synthesize import plan_of
from tests.worlds import CLIP, square


class Squares(Painter):
    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        return Pictures([square("red", seed) for seed in seeds], [False] * len(seeds))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("clip")
    export_pretrained(ModelSettings(architecture=f"local-dir:{CLIP}"), folder)
    encoder = load_encoder(folder, torch.device("cpu"))
    encoder.model.eval()
    return encoder


@pytest.fixture
def stored(tmp_path: Path) -> tuple[FolderStore, PairsManifest]:
    store, plan = FolderStore(tmp_path / "store"), plan_of(num_pairs=8)
    shards = [generate_shard.fn(store, plan, s, lambda: Squares())().manifest for s in plan.starts]
    return store, commit_pairs.fn(store, plan, shards).manifest


def test_batch_holds_each_prompt_once_and_the_teachers_features(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    indices = np.array([6, 0, 3, 5, 0])
    batch = replay.batch(teacher, indices)
    plan = plan_of(num_pairs=8)
    prompts = [plan.prompts[index] for index in indices]
    assert len(batch.prompt_tokens_PL) == len(set(prompts))
    tokens_BL = batch.prompt_tokens_PL[batch.prompt_ids_B]
    assert torch.equal(tokens_BL, teacher.tokenize(prompts))
    images = torch.stack(
        [torch.from_numpy(square("red", plan.seeds[i])).permute(2, 0, 1) for i in indices]
    )
    assert torch.allclose(batch.images_bCHW, teacher.normalise(images))
    with torch.no_grad():
        images_BD = encode_images(teacher.model, batch.images_bCHW)
        texts_BD = encode_texts(teacher.model, tokens_BL)
    assert torch.allclose(batch.teacher.image_features_BD, images_BD, atol=1e-6)
    assert torch.allclose(batch.teacher.text_features_BD, texts_BD, atol=1e-6)


def test_batches_once_hold_every_pair_once(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    batches = list(replay.batches_once(teacher, 3))
    assert [len(batch.images_bCHW) for batch in batches] == [3, 3, 2]
    whole = torch.cat([batch.images_bCHW for batch in batches])
    assert torch.equal(whole, teacher.normalise(torch.from_numpy(np.array(replay.images_NCHW))))


def test_seeded_batches_repeat(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    one, same, other = (next(replay.batches(teacher, 4, seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images_bCHW, same.images_bCHW)
    assert not torch.equal(one.images_bCHW, other.images_bCHW)


def test_a_rank_gets_its_rows_and_all_the_rest(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    whole, part = (
        next(replay.batches(teacher, 4, seed=1, rows=rows)) for rows in (slice(None), slice(2, 4))
    )
    assert torch.equal(part.images_bCHW, whole.images_bCHW[2:])
    for name in ("prompt_ids_B", "prompt_tokens_PL"):
        assert torch.equal(getattr(part, name), getattr(whole, name))
    assert torch.equal(part.teacher.image_features_BD, whole.teacher.image_features_BD)


def test_batches_start_where_a_broken_run_stopped(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    *_, fourth = islice(replay.batches(teacher, 3, seed=1), 4)
    resumed = next(replay.batches(teacher, 3, seed=1, start=3))
    assert torch.equal(resumed.images_bCHW, fourth.images_bCHW)


def test_other_processes_take_up_the_same_set(
    stored: tuple[FolderStore, PairsManifest], teacher: Encoder, tmp_path: Path
) -> None:
    replay = replay_set(*stored, teacher, tmp_path)
    replay.save(tmp_path / "replay.safetensors")
    images = tmp_path / f"{images_key(stored[1], teacher)}.npy"
    again = ReplaySet.load(tmp_path / "replay.safetensors", images)
    assert np.array_equal(again.images_NCHW, replay.images_NCHW)
    for name in ("prompt_ids_N", "prompt_tokens_PL", "teacher_images_ND", "teacher_texts_PD"):
        assert torch.equal(getattr(again, name), getattr(replay, name))
