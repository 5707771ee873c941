"""The generator's autoencoder: 32 x 32 pictures to latents of 8 channels at 8 x 8, and back.

Shapes: B batch, C latent channels (8), N pictures.
"""

import time

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from deployments.miniature.train_clip import learning_rate_at

LATENT_CHANNELS = 8
EDGE_WEIGHT = 0.5
KL_WEIGHT = 5e-4


def build_vae() -> AutoencoderKL:
    """Build the autoencoder with random weights."""
    channels = (16, 32, 64)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=32,
        # `standardise_latents_` gives each channel mean 0 and deviation 1: no scale is left.
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def edge_loss(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of neighbour differences, [B, 3, 32, 32] each: blur costs."""
    across = functional.l1_loss(pictures.diff(dim=3), targets.diff(dim=3))
    down = functional.l1_loss(pictures.diff(dim=2), targets.diff(dim=2))
    return (across + down) / 2


def vae_loss(vae: AutoencoderKL, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the loss of images [B, 3, 32, 32]; noise [B, C, 8, 8] draws the latents."""
    latents = vae.encode(images).latent_dist
    decoded = vae.decode(latents.mean + latents.std * noise).sample
    divergence = 0.5 * (latents.mean**2 + latents.var - 1 - latents.logvar).mean()
    rebuilt = functional.l1_loss(decoded, images) + EDGE_WEIGHT * edge_loss(decoded, images)
    return rebuilt + KL_WEIGHT * divergence


def train_vae(
    vae: AutoencoderKL, images: torch.Tensor, num_steps: int, batch_size: int, seed: int
) -> None:
    """Train the autoencoder on images: float32 [N, 3, 32, 32] in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)
    started = time.monotonic()
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, num_steps, peak=2e-3)
        rows = torch.randint(0, len(images), (batch_size,), generator=generator)
        noise = torch.randn((batch_size, LATENT_CHANNELS, 8, 8), generator=generator)
        loss = vae_loss(vae, images[rows], noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == num_steps - 1:
            seconds = time.monotonic() - started
            print(f"vae step {step} loss {loss.item():.4f} seconds {seconds:.0f}", flush=True)


@torch.no_grad()
def encoded(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the images' latents, float32 [N, C, 8, 8] each."""
    means, deviations = [], []
    for batch in images.split(64):
        latents = vae.encode(batch).latent_dist
        means.append(latents.mean)
        deviations.append(latents.std)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def standardise_latents_(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Give each latent channel mean 0 and deviation 1 on the images [N, 3, 32, 32], in place.

    The change is written into the two 1 x 1 convolutions around the latents, so decoded pictures
    stay as they were and the pipeline needs no scaling.
    """
    means, deviations = encoded(vae, images)
    mean_C = means.mean(dim=(0, 2, 3))
    variance_C = means.var(dim=(0, 2, 3)) + (deviations**2).mean(dim=(0, 2, 3))
    scale_C = variance_C.sqrt()
    inward, outward = vae.quant_conv, vae.post_quant_conv
    # The first C output channels are means, the other C are logarithms of variances.
    inward.weight[:LATENT_CHANNELS] /= scale_C[:, None, None, None]
    inward.bias[:LATENT_CHANNELS] = (inward.bias[:LATENT_CHANNELS] - mean_C) / scale_C
    inward.bias[LATENT_CHANNELS:] -= 2 * scale_C.log()
    outward.bias += outward.weight[:, :, 0, 0] @ mean_C
    outward.weight *= scale_C[None, :, None, None]
