"""How a generator is adapted to a task, and which one can be (LoRA-Loop, arXiv 2507.13568)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from gift_core.errors import SettingsError
from gift_core.settings import Settings
from tasks.models.generators import DiffusersSettings, GeneratorSettings

WHERE = "synthesis.adaptation"
WEIGHTS = "pytorch_lora_weights.safetensors"
"""diffusers' own name for such a file."""


class AdaptationSettings(Settings):
    """How the generator is adapted to a task (LoRA-Loop, arXiv 2507.13568)."""

    num_images: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Training images of a task that the generator learns: those that the new model "
        "recognises most confidently, evenly over the classes",
    )
    rank: int = Field(default=8, ge=1, le=1024, description="Rank of the updates")
    layers: Literal["attention", "all"] = Field(
        default="attention",
        description="Layers of the UNet that are updated: those of its attention; all: also its "
        "convolutions and feed-forward layers",
    )
    num_steps: int = Field(default=500, ge=1, le=1_000_000, description="Steps a task")
    batch_size: int = Field(default=4, ge=1, le=4096, description="Images a step")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Learning rate at first; it falls to 0 as a cosine"
    )


def check_adaptable(settings: GeneratorSettings) -> None:
    """SettingsError unless the generator is a diffusers pipeline with a UNet.

    What a name of the hub stands for is seen when it is loaded.
    """
    if not isinstance(settings, DiffusersSettings):
        raise SettingsError(
            f"{WHERE}: recorded pictures are no generator that could be adapted; leave it out"
        )
    from tasks.models.pipelines import INDEX

    index = Path(settings.model) / INDEX
    if index.is_file():
        parts = json.loads(index.read_bytes())
        kinds = [str(part[1]) for part in map(parts.get, ("unet", "vae")) if isinstance(part, list)]
        check_kinds(settings.model, kinds)


def check_kinds(name: str, kinds: Sequence[str]) -> None:
    """SettingsError unless these are the classes of a UNet and its autoencoder, in that order."""
    if list(kinds) != ["UNet2DConditionModel", "AutoencoderKL"]:
        raise SettingsError(
            f"{WHERE}: {name} has no UNet (it is no Stable Diffusion 1, 2 or XL), and only a UNet "
            "can be adapted; name another generator, or leave adaptation out"
        )
