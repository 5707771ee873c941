"""A pipeline of Stable Diffusion v1.5's layout with random weights, at any width."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from tests.worlds import GENERATOR

REAL_WIDTH = 320


def save_sd15(folder: Path, width: int) -> Path:
    """Write the pipeline; `width` 320 has v1.5's own numbers, a smaller one shrinks every part.

    The text encoder knows the miniature's words: its size is v1.5's share, its vocabulary is not.
    """
    torch.manual_seed(0)
    text_width = 768 * width // REAL_WIDTH // 12 * 12 or 12
    real = width == REAL_WIDTH
    text = CLIPTextConfig(
        vocab_size=90,
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=12 if real else 2,
        num_attention_heads=12,
        max_position_embeddings=14,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=tuple(width * factor for factor in (1, 2, 4, 4)),
        cross_attention_dim=text_width,
        attention_head_dim=8,
        norm_num_groups=32 if real else 8,
    )
    narrow = 128 if real else 16
    vae = AutoencoderKL(
        block_out_channels=tuple(narrow * factor for factor in (1, 2, 4, 4)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=2 if real else 1,
        norm_num_groups=32 if real else 8,
        sample_size=512,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=AutoTokenizer.from_pretrained(GENERATOR / "tokenizer"),
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder
