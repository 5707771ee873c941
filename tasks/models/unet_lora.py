"""A LoRA of a generator's UNet: learnt on a task's own images, and used beside the UNet's weights.

Kept in diffusers' own LoRA format. diffusers and peft take seconds to import and are imported where
they are used.

Letters: N images, B of a batch, L tokens of a prompt, D features, C x H x W the channels, height
and width of a picture or a latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gift_core.errors import Diverged, SettingsError
from gift_core.schedule import learning_rate_at
from tasks.models.adaptation import WHERE, AdaptationSettings, check_kinds
from tasks.models.pipelines import PipelineGenerator

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "proj_in", "proj_out")
LAYERS = {"attention": ATTENTION, "all": (*ATTENTION, *BLOCKS, "ff.net.0.proj", "ff.net.2")}
"""What the names of the UNet's layers that get an update end in."""

PROMPTS_LEFT_OUT = 0.1
"""Share of images that are learnt without their prompt, as Stable Diffusion was: classifier-free
guidance compares with what the UNet makes of no prompt."""

LARGEST_GRADIENT = 1.0
ENCODED_AT_ONCE = 16


class UnetLora:
    """A LoRA that is being learnt; everything else of the pipeline is frozen.

    The generator is not to be used for anything else afterwards. Raises SettingsError when it
    cannot be adapted.
    """

    def __init__(
        self, generator: PipelineGenerator, settings: AdaptationSettings, seed: int
    ) -> None:
        import diffusers
        from peft import LoraConfig

        self._pipeline: Any = generator.pipeline
        self._settings, self._seed = settings, seed
        parts = [getattr(self._pipeline, name, None) for name in ("unet", "vae")]
        check_kinds(generator.settings.model, [type(part).__name__ for part in parts])
        self._unet, self._vae = parts
        noise = self._pipeline.scheduler
        if diffusers.PNDMScheduler not in noise.compatibles:
            raise SettingsError(
                f"{WHERE}: {type(noise).__name__} of {generator.settings.model} adds no noise of "
                "diffusion; name another generator, or leave adaptation out"
            )
        self._noise = diffusers.DDPMScheduler.from_config(noise.config)
        scale = self._pipeline.vae_scale_factor
        self._side = generator.settings.image_size or self._unet.config.sample_size * scale
        self._vae.requires_grad_(False)
        self._unet.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LoraConfig(
                r=settings.rank,
                lora_alpha=settings.rank,
                init_lora_weights="gaussian",
                target_modules=list(LAYERS[settings.layers]),
            )
            self._unet.add_adapter(config)

    def learn(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Iterator[float]:
        """Take the steps, telling the loss of each; `images` go with their `prompts`, N of each.

        The UNet predicts what its scheduler's `prediction_type` asks for; the loss is the mean
        squared error. Every draw comes from the seed, on the CPU. Raises Diverged when the loss is
        no number any more.
        """
        settings, source = self._settings, torch.Generator("cpu").manual_seed(self._seed)
        latents_NCHW = self._latents(images)
        conditions, rows_N = self._conditions(prompts)
        weights = [weight for weight in self._unet.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
        self._unet.train()
        for step, chosen_B in enumerate(self._batches(len(images), source)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings.num_steps, 0, settings.learning_rate)
            loss = self._loss(latents_NCHW[chosen_B], conditions, rows_N[chosen_B], source)
            value = float(loss.detach())
            if not np.isfinite(value):
                raise Diverged(
                    f"{WHERE}: the loss is {value} at step {step + 1}; lower its learning_rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT)
            optimizer.step()
            yield value

    def save(self, folder: Path) -> None:
        """Write the weights as a file that `load_lora_weights` of a diffusers pipeline reads."""
        from peft import get_peft_model_state_dict

        layers = get_peft_model_state_dict(self._unet)
        type(self._pipeline).save_lora_weights(
            folder, unet_lora_layers={name: value.cpu() for name, value in layers.items()}
        )

    def _batches(self, count: int, source: torch.Generator) -> Iterator[Tensor]:
        """Rows of each step's batch: every image once before any comes again."""
        size, num_steps = self._settings.batch_size, self._settings.num_steps
        rounds = -(-size * num_steps // count)
        order = torch.cat([torch.randperm(count, generator=source) for _ in range(rounds)])
        for step in range(num_steps):
            yield order[step * size : (step + 1) * size]

    @torch.no_grad()
    def _latents(self, images: Sequence[Image.Image]) -> Tensor:
        """The images as the UNet sees them, (N, C, H, W) on the CPU: the mean of each encoding."""
        parts = []
        for first in range(0, len(images), ENCODED_AT_ONCE):
            pictures = [_squared(image, self._side) for image in images[first:][:ENCODED_AT_ONCE]]
            pixels_BCHW = torch.stack(pictures).to(self._vae.device, self._vae.dtype)
            parts.append(self._vae.encode(pixels_BCHW).latent_dist.mode().cpu())
        return torch.cat(parts) * self._vae.config.scaling_factor

    @torch.no_grad()
    def _conditions(self, prompts: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
        """What the UNet is told of each distinct prompt, and the row of each image's prompt.

        The first row is what it is told of no prompt: the pipeline's own unconditional embedding.
        """
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts), start=1)}
        text_1LD, none_1LD, *pooled = self._encoded(prompts[0])
        texts, pools = [none_1LD], pooled[1:2]
        for prompt in rows:
            text_1LD, _, *pooled = self._encoded(prompt)
            texts.append(text_1LD)
            pools += pooled[:1]
        conditions = {"encoder_hidden_states": torch.cat(texts)}
        if pools:  # Stable Diffusion XL
            conditions["text_embeds"] = torch.cat(pools)
        return conditions, torch.tensor([rows[prompt] for prompt in prompts])

    def _encoded(self, prompt: str) -> tuple[Tensor, ...]:
        """As the pipeline does for itself: with, without, and where it has them pooled ones."""
        encoded: tuple[Tensor, ...] = self._pipeline.encode_prompt(
            prompt=prompt,
            device=self._unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
        return encoded

    def _loss(
        self,
        latents_BCHW: Tensor,
        conditions: Mapping[str, Tensor],
        rows_B: Tensor,
        source: torch.Generator,
    ) -> Tensor:
        count, device = len(latents_BCHW), self._unet.device
        noise_BCHW = torch.randn(latents_BCHW.shape, generator=source)
        times_B = torch.randint(self._noise.config.num_train_timesteps, (count,), generator=source)
        left_out_B = torch.rand(count, generator=source) < PROMPTS_LEFT_OUT
        rows_B = rows_B.masked_fill(left_out_B, 0).to(device)
        noisy_BCHW = self._noise.add_noise(latents_BCHW, noise_BCHW, times_B)
        told: dict[str, Any] = {name: value[rows_B] for name, value in conditions.items()}
        if "text_embeds" in told:
            told = {
                "encoder_hidden_states": told["encoder_hidden_states"],
                "added_cond_kwargs": {
                    "text_embeds": told["text_embeds"],
                    "time_ids": self._sizes(told["text_embeds"]),
                },
            }
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted_BCHW = self._unet(noisy_BCHW.to(device), times_B.to(device), **told).sample
        wanted_BCHW = self._wanted(latents_BCHW, noise_BCHW, times_B).to(device)
        return torch.nn.functional.mse_loss(predicted_BCHW.float(), wanted_BCHW)

    def _wanted(self, latents_BCHW: Tensor, noise_BCHW: Tensor, times_B: Tensor) -> Tensor:
        kind = self._noise.config.prediction_type
        if kind == "v_prediction":
            velocity: Tensor = self._noise.get_velocity(latents_BCHW, noise_BCHW, times_B)
            return velocity
        return latents_BCHW if kind == "sample" else noise_BCHW

    def _sizes(self, pooled_BD: Tensor) -> Tensor:
        """What Stable Diffusion XL is told of a picture's size before and after cropping."""
        size = (self._side, self._side)
        width = self._pipeline.text_encoder_2.config.projection_dim
        sizes_16: Tensor = self._pipeline._get_add_time_ids(
            size, (0, 0), size, pooled_BD.dtype, text_encoder_projection_dim=width
        )
        return sizes_16.to(pooled_BD.device).expand(len(pooled_BD), -1)


def _squared(image: Image.Image, side: int) -> Tensor:
    """The square in the middle as (3, side, side), from -1 to 1."""
    square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0


class Adapters:
    """The adapters that a generator has taken in, one of which at most is in use.

    They stand beside the weights, which therefore stay as they are, bit for bit.
    """

    def __init__(self, generator: PipelineGenerator) -> None:
        self._unet: Any = generator.pipeline.unet
        self._names: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def take_in(self, name: str, weights: Path) -> None:
        """Load weights (`UnetLora.save`) under a name; SettingsError when they do not fit."""
        own = f"adapter-{len(self._names)}"  # peft makes it a module's name: no dots
        try:
            self._unet.load_lora_adapter(
                weights.parent,
                prefix="unet",
                weight_name=weights.name,
                adapter_name=own,
                use_safetensors=True,
            )
        except Exception as error:  # weights of another UNet fail anywhere in diffusers
            raise SettingsError(f"{WHERE}: {name} does not fit the generator: {error}") from error
        self._names[name] = own

    def use(self, name: str | None) -> None:
        """Generate with this adapter from here on; None: as the generator is by itself."""
        if name is not None:
            self._unet.set_adapters(self._names[name])
            self._unet.enable_lora()
        elif self._names:
            self._unet.disable_lora()
