"""The miniature's CLIP as a judge: it knows its own pictures, and the stage keeps what it knows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gift_core.selection import Selection
from tasks.generation import SynthesisSettings
from tasks.manifests import ModelManifest, PairsManifest
from tasks.models.encoders import export_pretrained, load_encoder
from tasks.models.generators import DiffusersSettings
from tasks.models.starting_model import ModelSettings, check_model
from tasks.pretrained import take_pretrained
from tasks.recognition import TeacherJudge
from tasks.replay import load_pairs
from tasks.store.objects import FolderStore
from tasks.synthesize import LazyGenerator, commit_pairs, generate_shard, plan_pairs
from tests.worlds import CLIP, GENERATOR

PROMPTS = ("a photo of a red star.", "a photo of a dot pattern.", "a photo of a blue ring.")
MODEL = ModelSettings(architecture=f"local-dir:{CLIP}")


def test_confidence_is_the_models_own_and_features_have_unit_length(tmp_path: Path) -> None:
    export_pretrained(MODEL, tmp_path)
    encoder = load_encoder(tmp_path, torch.device("cpu"))
    encoder.model.eval()
    settings = DiffusersSettings(
        model=str(GENERATOR), num_steps=10, guidance_scale=4, image_size=32, solver="model"
    )
    images = settings.load(torch.device("cpu")).generate(PROMPTS, [1, 2, 3]).images
    judge = TeacherJudge(encoder, [*PROMPTS, PROMPTS[0]])
    features_BD, right_B = judge(images, PROMPTS)
    assert features_BD.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    shares_BP = torch.stack([judge(images, [prompt] * 3)[1] for prompt in PROMPTS], dim=1)
    assert shares_BP.sum(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert (shares_BP.argmax(dim=1) == torch.arange(3)).all()
    torch.testing.assert_close(shares_BP.diagonal(), right_B)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert judge([noise], PROMPTS[:1])[1] < right_B[0]


def made(store: FolderStore, model: ModelManifest, selection: Selection) -> PairsManifest:
    generator = DiffusersSettings(
        model=str(GENERATOR), num_steps=4, guidance_scale=4, image_size=32, solver="model"
    )
    synthesis = SynthesisSettings(num_pairs=6, generator=generator, selection=selection)
    plan = plan_pairs("cold", 1, PROMPTS, synthesis, generator.check(), seed=0, teacher=model)
    shard = generate_shard.fn(store, plan, 0, LazyGenerator(synthesis))().manifest
    return commit_pairs.fn(store, plan, [shard]).manifest


def test_the_stage_keeps_what_the_teacher_recognises_best(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    model = take_pretrained.fn(store, MODEL, check_model(MODEL)).manifest
    plain, chosen = made(store, model, Selection()), made(store, model, Selection(candidates=3))
    assert (plain.num_rejected, chosen.rejected) == (0, {"outranked": 12})
    assert chosen.key != plain.key
    tried = {pair.index: pair.seed for pair in load_pairs(store, plain)}
    picked = {pair.index: pair.seed for pair in load_pairs(store, chosen)}
    assert any(picked[index] != tried[index] for index in tried)
    again = made(store, model, Selection(candidates=3))
    assert again == chosen
