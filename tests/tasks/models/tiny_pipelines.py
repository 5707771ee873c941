"""Pipelines of other families with random weights, a few hundred kilobytes each, in safetensors.

Words come from the miniature's own tokenizer: 14 tokens, about ninety words.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from peft import LoraConfig, get_peft_model_state_dict
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tests.worlds import GENERATOR

WIDTH = 32


def tokenizer() -> object:
    return AutoTokenizer.from_pretrained(GENERATOR / "tokenizer")


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=90,
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=14,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=90, d_model=WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
        shift_factor=0.0,
    )


def sdxl() -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
        norm_num_groups=8,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    )


def sd3() -> DiffusionPipeline:
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=WIDTH,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    wide = T5Config(vocab_size=90, d_model=2 * WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer_2=tokenizer(),
        text_encoder_3=T5EncoderModel(wide),
        tokenizer_3=tokenizer(),
    )


def pixart() -> DiffusionPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        cross_attention_dim=24,
        in_channels=4,
        out_channels=8,
    )
    return PixArtSigmaPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {"sdxl": sdxl, "sd3": sd3, "pixart": pixart}


def save(family: str, folder: Path) -> Path:
    """Write a family's tiny pipeline; equal weights each time."""
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder)
    return folder


def save_prude(folder: Path) -> Path:
    """The miniature's pipeline with a safety checker that flags everything."""
    pipeline = StableDiffusionPipeline.from_pretrained(GENERATOR, safety_checker=None)
    vision = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": WIDTH}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(text_config=text_config().to_dict(), vision_config=vision, projection_dim=WIDTH)
    )
    checker.concept_embeds_weights.data.fill_(-2.0)  # below any cosine
    size = {"height": 16, "width": 16}
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size),
    )
    pipeline.save_pretrained(folder)
    return folder


def save_lora(folder: Path) -> Path:
    """Low-rank weights for the miniature's UNet that change its pictures."""
    unet = UNet2DConditionModel.from_pretrained(GENERATOR / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(unet)
    )
    return folder / "pytorch_lora_weights.safetensors"
