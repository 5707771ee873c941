"""The engine: what autocast reaches, what it does not, and what a device cannot do."""

import pytest
import torch

from gift_core.collectives import Ranks
from gift_core.engine import default_precision, make_engine, matrix_precision, plain_engine
from gift_core.errors import SettingsError
from gift_core.features import encode_images, encode_texts
from tests.gift_core.tiny import scene

CPU = torch.device("cpu")


def test_the_plain_engine_is_the_two_towers() -> None:
    world = scene()
    images, tokens = world.task(0).images_bCHW, world.task(0).class_tokens_KL
    images_BD, texts_KD = plain_engine(world.teacher).encode(images, tokens)
    assert torch.equal(images_BD, encode_images(world.teacher, images))
    assert torch.equal(texts_KD, encode_texts(world.teacher, tokens))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_towers_give_unit_vectors_and_gradients_in_fp32(precision: str) -> None:
    world = scene(torch.float32)
    student, task = world.student(), world.task(0)
    seen = []
    student.visual.resblocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    engine = make_engine(student, precision, Ranks(), CPU)  # type: ignore[arg-type]
    images_BD, texts_KD = engine.encode(task.images_bCHW, task.class_tokens_KL)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == [half]
    for features in (images_BD, texts_KD):
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    exact = encode_images(world.teacher, task.images_bCHW)
    assert 0.0 < (images_BD - exact).abs().max() < 0.02
    images_BD.sum().backward()
    assert student.visual.resblocks[0].weight.grad.dtype == torch.float32


def test_only_fp16_scales_the_loss() -> None:
    student = scene(torch.float32).student()
    scales = [make_engine(student, p, Ranks(), CPU).loss_scale for p in ("fp32", "bf16", "fp16")]
    assert scales == [1.0, 1.0, 65536.0]


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(SettingsError, match="tf32 needs CUDA, not cpu; choose fp32"):
        make_engine(scene().student(), "tf32", Ranks(), CPU)


def test_the_default_precision_follows_the_device() -> None:
    assert default_precision(CPU) == "fp32"
    assert default_precision(torch.device("cuda")) == "bf16"


def test_matrix_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with matrix_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
