"""The generator's text encoder and UNet, trained together to predict the velocity of latents.

Shapes: B batch, C latent channels (8), T tokens of a prompt (14), N pictures, K captions.
"""

import time
from collections.abc import Callable

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from deployments.miniature.generator_vae import LATENT_CHANNELS
from deployments.miniature.tokens import END_ID, PAD_ID, START_ID, num_tokens
from deployments.miniature.train_clip import learning_rate_at
from deployments.miniature.vocabulary import CONTEXT_LENGTH

TEXT_WIDTH = 64
EMPTY_CAPTION_SHARE = 0.1
EMA_DECAY = 0.998


def build_text_encoder() -> CLIPTextModel:
    """Build the one-layer text encoder with random weights."""
    config = CLIPTextConfig(
        vocab_size=num_tokens(),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        pad_token_id=PAD_ID,
        bos_token_id=START_ID,
        eos_token_id=END_ID,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """Build the UNet with random weights: 8 x 8 and 4 x 4, text at both on the way up."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        # diffusers reads this as the number of heads.
        attention_head_dim=2,
        time_embedding_dim=128,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Build the noise schedule, which is also the sampler of the shipped pipeline."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
    )


class Denoiser(torch.nn.Module):
    """Text encoder and UNet as one module, so that one optimizer and one average hold both."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder()
        self.unet = build_unet()

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted velocity [B, C, 8, 8] of latents at timesteps [B], tokens [B, T]."""
        text = self.text_encoder(tokens).last_hidden_state
        return self.unet(latents, timesteps, text, return_dict=False)[0]


def velocity_loss(
    denoiser: Denoiser,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    signal_levels: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the mean squared error of the velocity at random noise levels.

    Latents [B, C, 8, 8], tokens [B, T], signal_levels [1000]: the schedule's cumulated alphas.
    """
    num_levels = len(signal_levels)
    # One level out of each of B equal strata: the loss, and so the gradient, varies less.
    offsets = torch.rand((), generator=generator) + torch.arange(len(latents)) / len(latents)
    timesteps = ((offsets % 1) * num_levels).long()
    noise = torch.randn(latents.shape, generator=generator)
    signal = signal_levels[timesteps].sqrt()[:, None, None, None]
    spread = (1 - signal_levels[timesteps]).sqrt()[:, None, None, None]
    predicted = denoiser(signal * latents + spread * noise, timesteps, tokens)
    return functional.mse_loss(predicted, signal * noise - spread * latents)


def train_denoiser(
    denoiser: Denoiser,
    latents: tuple[torch.Tensor, torch.Tensor],
    caption_ids: torch.Tensor,
    tokens: torch.Tensor,
    empty_tokens: torch.Tensor,
    num_steps: int,
    batch_size: int,
    seed: int,
    snapshot_every: int,
    snapshot: Callable[[], None],
) -> None:
    """Train the denoiser, and leave it with the moving average of its weights.

    Latents: means and deviations [N, C, 8, 8]; caption_ids [N] into tokens [K, T];
    empty_tokens [T]. `snapshot` is called while the averaged weights are in place.
    """
    generator = torch.Generator().manual_seed(seed)
    signal_levels = build_scheduler().alphas_cumprod
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=0.0, betas=(0.9, 0.99))
    average = EMAModel(denoiser.parameters(), decay=EMA_DECAY)
    started, losses = time.monotonic(), []
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, num_steps, peak=1.5e-3)
        rows = torch.randint(0, len(caption_ids), (batch_size,), generator=generator)
        jitter = torch.randn(latents[0][rows].shape, generator=generator)
        batch = latents[0][rows] + latents[1][rows] * jitter
        batch_tokens = tokens[caption_ids[rows]]
        dropped = torch.rand(batch_size, generator=generator) < EMPTY_CAPTION_SHARE
        batch_tokens[dropped] = empty_tokens
        loss = velocity_loss(denoiser, batch, batch_tokens, signal_levels, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        average.step(denoiser.parameters())
        losses.append(loss.item())
        if step % 50 == 0:
            seconds, mean = time.monotonic() - started, sum(losses[-50:]) / len(losses[-50:])
            print(f"unet step {step} loss {mean:.4f} seconds {seconds:.0f}", flush=True)
        if step and step % snapshot_every == 0:
            average.store(denoiser.parameters())
            average.copy_to(denoiser.parameters())
            snapshot()
            average.restore(denoiser.parameters())
    average.copy_to(denoiser.parameters())
