"""The family of generators: what turns prompts and seeds into pictures.

A new generator is one more class with `check`, `pool` and `load`, and one more member of
`GeneratorSettings` at the end. diffusers and torch take seconds to import and are imported where
they are used: training does without the one, planning without both.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from gift_core.errors import SettingsError
from gift_core.settings import Settings, added
from tasks.digests import digest_of_files, sha256_of_file

if TYPE_CHECKING:
    import torch

SolverName = Literal[
    "released", "model", "pndm", "ddim", "dpm++", "dpm++-karras", "unipc", "euler",
    "euler-trailing", "euler-ancestral", "heun", "lcm",
]  # fmt: skip
WHERE = "synthesis.generator"


@dataclass(frozen=True)
class Pictures:
    """What a generator made: uint8 pictures (H, W, 3), and which its safety checker flagged."""

    images: Sequence[NDArray[np.uint8]]
    flagged: Sequence[bool]


class Generator(Protocol):
    """A generator that is loaded and ready."""

    identity: str

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        """One picture for each prompt and its own seed."""


def check_identity(found: str, planned: str) -> None:
    """SettingsError when the generator here is another one than the plan's."""
    if found != planned:
        raise SettingsError(
            f"{WHERE}: this worker has {found} where the plan was made for {planned}; give every "
            "worker the same files"
        )


class LoraSettings(Settings):
    """Low-rank weights that change a pipeline: a style, or a few-step solver such as LCM-LoRA."""

    path: str = Field(min_length=1, description="A safetensors file, or a hub name (ORG/NAME)")
    weight: float = Field(default=1.0, ge=-8, le=8, description="How strongly it is mixed in")

    def check(self) -> str:
        """Say which weights they are; SettingsError when they are none. Nothing is downloaded."""
        if not os.path.exists(self.path):
            _check_hub_name(f"{WHERE}.loras", "file", self.path)
            return f"{self.path}*{self.weight:g}"
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                if not any("lora" in name for name in file.keys()):  # noqa: SIM118 - no mapping
                    raise SettingsError(f"{WHERE}.loras: {self.path} holds no LoRA weights")
        except (SafetensorError, OSError) as error:
            raise SettingsError(
                f"{WHERE}.loras: {self.path} is not a readable safetensors file ({error})"
            ) from None
        return f"{sha256_of_file(Path(self.path))[:16]}*{self.weight:g}"


class DiffusersSettings(Settings):
    """A diffusers text-to-image pipeline, from a folder or from the Hugging Face hub."""

    NAMED_BY_IDENTITY: ClassVar[frozenset[str]] = frozenset({"model", "revision", "loras"})
    """Where the weights lie decides no output: `check` says what they are."""

    kind: Literal["diffusers"] = "diffusers"
    model: str = Field(
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        min_length=1,
        description="A pipeline folder, or a hub name (paper: Stable Diffusion v1.5)",
    )
    revision: str | None = Field(
        default=None, description="Hub revision to pin; not used with a folder"
    )
    num_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (paper: 50)")
    guidance_scale: float = Field(
        default=7.5, ge=0, le=50, description="Classifier-free guidance (paper: 7.5)"
    )
    image_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Height and width in pixels; empty: the model's own (paper: 512)",
    )
    solver: SolverName = Field(
        default="released",
        description="released: PNDM at 50 steps or more, DPM-Solver++ below (the released code's); "
        "model: the scheduler saved with the pipeline; else the one of that name",
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default=16,
        description="Pictures a call (the released code: 1); part of the plan of a shard. auto: as "
        "many as a GPU's memory allows, found once and kept in the store; 16 on a CPU",
    )
    loras: tuple[LoraSettings, ...] = added(
        (), max_length=8, description="Low-rank weights mixed into the pipeline"
    )
    safety_checker: Literal["model", "off", "required"] = added(
        "model",
        description="model: as the pipeline has it; off: without; required: refused when the "
        "pipeline has none. What it flags is made anew",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = added(
        "auto",
        description="Numbers that the pipeline computes in; auto: fp16 on a GPU (as released), "
        "fp32 on a CPU",
    )
    channels_last: bool = added(
        False, description="Lay pictures out channels last: faster convolutions on most GPUs"
    )
    compile: bool = added(
        False,
        description="Let torch.compile fuse the denoiser: minutes once, then faster on a GPU",
    )

    def check(self) -> str:
        """Say what the generator is, or refuse it with SettingsError; nothing is downloaded."""
        from tasks.models.pipelines import check_index

        folder = Path(self.model)
        if os.path.exists(folder):  # not Path.exists, which raises for a name too long
            check_index(folder)
            identity = f"{folder.name}@{digest_of_files(folder)[:16]}"
        else:
            _check_hub_name(f"{WHERE}.model", "folder", self.model)
            identity = f"{self.model}@{self.revision or 'main'}"
        return "+".join([identity, *(lora.check() for lora in self.loras)])

    def pool(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the prompts that it can answer: all."""
        return prompts

    def load(self, device: "torch.device") -> Generator:
        """Load the pipeline onto a device; SettingsError when diffusers cannot."""
        from tasks.models.pipelines import PipelineGenerator

        return PipelineGenerator(self, device)


def _check_hub_name(where: str, what: str, name: str) -> None:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise SettingsError(
            f"{where}: no {what} {name}; name a diffusers pipeline folder or a hub model (ORG/NAME)"
            if what == "folder"
            else f"{where}: no {what} {name}; name a safetensors file or a hub model (ORG/NAME)"
        )


class RecordedSettings(Settings):
    """Real pictures with captions in place of a generator: a Parquet file, nothing is synthesised.

    For those who may not synthesise, and for the ablation with real images. Each pair takes a
    picture whose caption is its prompt, chosen by its seed.
    """

    NAMED_BY_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path"})

    kind: Literal["recorded"]
    path: str = Field(
        min_length=1,
        description="A Parquet file with an image column (as `datasets` writes it) and a caption "
        "column; a shard of replay pairs is one",
    )
    captions: str = Field(
        default="prompt", min_length=1, max_length=200, description="Name of the caption column"
    )
    prompts: Literal["pool", "captions"] = Field(
        default="pool",
        description="pool: draw the prompts known before a task of which there are pictures; "
        "captions: draw the file's own captions",
    )
    batch_size: int = Field(default=64, ge=1, le=1024, description="Pictures read at a time")

    def check(self) -> str:
        """Say which file it is, or refuse it with SettingsError."""
        from tasks.models.recorded import RecordedPictures

        return RecordedPictures(self).identity

    def pool(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the prompts that it has pictures of; SettingsError when there are none."""
        from tasks.models.recorded import RecordedPictures

        known = RecordedPictures(self).known_prompts
        found = known if self.prompts == "captions" else [p for p in prompts if p in set(known)]
        if not found:
            raise SettingsError(
                f"{WHERE}: {self.path} has no picture captioned as a prompt of the pool, such as "
                f"{prompts[0]!r}; set prompts: captions to draw its own"
            )
        return tuple(found)

    def load(self, device: "torch.device") -> Generator:
        """Open the file; the device does not matter."""
        from tasks.models.recorded import RecordedPictures

        return RecordedPictures(self)


def _diffusers_unless_said(settings: Any) -> Any:  # noqa: ANN401 - anything a file may hold
    """Files written before there were kinds name none."""
    if isinstance(settings, dict) and "kind" not in settings:
        return {"kind": "diffusers"} | settings
    return settings


GeneratorSettings = Annotated[
    Annotated[DiffusersSettings | RecordedSettings, Field(discriminator="kind")],
    BeforeValidator(_diffusers_unless_said),
]
