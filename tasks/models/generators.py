"""The family of generators: a text-to-image model that turns prompts and seeds into pictures.

A new generator is one more class here and one more member of `GeneratorSettings` at the end.
diffusers takes seconds to import and is imported where it is used: training does without.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from gift_core.errors import SettingsError
from gift_core.settings import Settings
from tasks.digests import digest_of_files

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
RELEASED_STEPS = 50
"""Below this many steps the released code leaves PNDM for DPM-Solver++ (docs/method.md)."""


class Generator(Protocol):
    """A generator that is loaded and ready."""

    identity: str

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures (B, H, W, 3), one for each prompt and its own seed."""


class DiffusersSettings(Settings):
    """A diffusers text-to-image pipeline, from a folder or from the Hugging Face hub."""

    kind: Literal["diffusers"] = "diffusers"
    model: str = Field(
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        min_length=1,
        description="A pipeline folder, or a hub name (paper: Stable Diffusion v1.5)",
    )
    revision: str | None = Field(
        default=None, description="Hub revision to pin; not used with a folder"
    )
    num_steps: int = Field(
        default=RELEASED_STEPS, ge=1, le=1000, description="Denoising steps (paper: 50)"
    )
    guidance_scale: float = Field(
        default=7.5, ge=0, le=50, description="Classifier-free guidance (paper: 7.5)"
    )
    image_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Height and width in pixels; empty: the model's own (paper: 512)",
    )
    solver: Literal["released", "model"] = Field(
        default="released",
        description="released: PNDM at 50 steps or more, DPM-Solver++ below (the released code's); "
        "model: the scheduler saved with the pipeline",
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Pictures a call (the released code: 1); part of the plan of a shard",
    )

    def check(self) -> str:
        """Say what the generator is, or refuse it with SettingsError; nothing is downloaded."""
        folder = Path(self.model)
        if not os.path.exists(folder):  # not Path.exists, which raises for a name too long
            if self.model.count("/") != 1 or self.model.startswith((".", "/", "~")):
                raise SettingsError(
                    f"synthesis.generator.model: no folder {folder}; name a diffusers pipeline"
                    " folder or a hub model (ORG/NAME)"
                )
            return f"{self.model}@{self.revision or 'main'}"
        _check_index(folder)
        return f"{folder.name}@{digest_of_files(folder)[:16]}"

    def load(self, device: torch.device) -> Generator:
        """Load the pipeline onto a device; SettingsError when diffusers cannot."""
        return _DiffusersGenerator(self, device)


def _check_index(folder: Path) -> None:
    """SettingsError unless the folder's index names parts of diffusers and transformers alone.

    diffusers imports whatever module the index names.
    """
    where = "synthesis.generator.model"
    try:
        index = json.loads((folder / INDEX).read_bytes())
        known = index["_class_name"]
        parts = {name: part for name, part in index.items() if isinstance(part, list)}
        modules = {name: str(module) for name, (module, _) in parts.items() if module is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SettingsError(
            f"{where}: {folder} is not a diffusers pipeline folder (no readable {INDEX})"
        ) from None
    import diffusers

    if not isinstance(known, str) or not _is_pipeline(known):
        raise SettingsError(
            f"{where}: {folder / INDEX} names the pipeline {known}, which this diffusers does not "
            "have"
        )
    for name, module in modules.items():
        if module not in LIBRARIES and not hasattr(diffusers.pipelines, module):
            raise SettingsError(
                f"{where}: {folder / INDEX} takes {name} from {module}, which is neither diffusers "
                "nor transformers; such code is not run"
            )


def _is_pipeline(name: str) -> bool:
    import diffusers

    try:
        kind = getattr(diffusers, name, None)
    except Exception:  # parts of diffusers need libraries that are not there
        return False
    return isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)


class _DiffusersGenerator:
    """fp16 on a GPU, fp32 on a CPU (where fp16 is ten times slower)."""

    def __init__(self, settings: DiffusersSettings, device: torch.device) -> None:
        import diffusers
        import transformers

        self.identity = settings.check()
        self.settings = settings
        # Our own progress counts pictures; a bar of files being read says nothing to anybody.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        try:
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
                settings.model, revision=settings.revision, dtype=dtype, use_safetensors=True
            )
        # A pipeline that is not what its index says fails anywhere in diffusers.
        except Exception as error:
            raise SettingsError(
                f"synthesis.generator.model: diffusers could not load {settings.model}: {error}"
            ) from error
        if settings.solver == "released":
            solver = (
                diffusers.PNDMScheduler
                if settings.num_steps >= RELEASED_STEPS
                else diffusers.DPMSolverMultistepScheduler
            )
            pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(device)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures uint8 (B, H, W, 3).

        Noise comes from a CPU generator a picture, so that a seed gives the same noise on every
        device and in every batch.
        """
        output = self.pipeline(
            list(prompts),
            num_inference_steps=self.settings.num_steps,
            guidance_scale=self.settings.guidance_scale,
            height=self.settings.image_size,
            width=self.settings.image_size,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        return (output.images * 255.0).round().astype(np.uint8)


GeneratorSettings = DiffusersSettings
