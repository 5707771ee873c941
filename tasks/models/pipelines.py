"""diffusers' text-to-image pipelines: looked at before they are loaded, then run batch by batch."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gift_core.errors import SettingsError
from tasks.models.embeddings import encode_each_prompt_once
from tasks.models.generators import WHERE, DiffusersSettings, Pictures
from tasks.models.weights import why_not_fetched

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
TRIED_STEPS = 2
"""Of a batch that is made to see what it takes: every step takes the same memory."""
RELEASED_STEPS = 50
"""Below this many steps the released code leaves PNDM for DPM-Solver++ (docs/method.md)."""

SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "pndm": ("PNDMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Each solver's class in diffusers, and what is changed of the pipeline's own noise schedule."""

QUIET_CHANGES = ("use_resolution_binning", "clean_caption")
"""Arguments of some pipelines that make another size than asked for, or rewrite the prompt."""

logger = logging.getLogger(__name__)


def check_index(folder: Path) -> None:
    """SettingsError unless the folder's index names parts of diffusers and transformers alone.

    diffusers imports whatever module the index names.
    """
    where = f"{WHERE}.model"
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


class PipelineGenerator:
    """A pipeline that makes a batch a call, every picture from noise of its own seed."""

    def __init__(self, settings: DiffusersSettings, device: torch.device) -> None:
        import diffusers
        import transformers

        self.identity = settings.check()
        self.settings = settings
        # Our own progress counts pictures; a bar of files being read says nothing to anybody.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        try:
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
                settings.model,
                revision=settings.revision,
                dtype=_dtype(settings.precision, device),
                use_safetensors=True,
            )
            _mix_in_loras(pipeline, settings)
        # A pipeline that is not what its index says fails anywhere in diffusers.
        except Exception as error:
            why = str(error) if os.path.exists(settings.model) else why_not_fetched(error)
            raise SettingsError(
                f"{WHERE}.model: diffusers could not load {settings.model}: {why}"
            ) from error
        _set_safety_checker(pipeline, settings)
        _set_solver(pipeline, settings)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(device)
        encode_each_prompt_once(self.pipeline)
        _tune(self.pipeline, settings)
        self._arguments = _arguments(pipeline, settings)
        self._savings = _savings(pipeline)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Pictures:
        """Make a picture for each prompt and seed; SettingsError when memory does not suffice.

        Noise comes from a CPU generator a picture, so that a seed gives the same noise on every
        device and in every batch. When memory runs out, the batch is made again with less of it.
        """
        while True:
            try:
                return self._generated(prompts, seeds)
            except torch.OutOfMemoryError:
                if not self._savings:
                    raise SettingsError(
                        f"{WHERE}.batch_size: {len(prompts)} pictures at once do not fit into "
                        "memory; make it smaller"
                    ) from None
            torch.cuda.empty_cache()
            words, save = self._savings.pop(0)
            logger.warning("memory ran out: from here on %s (last digits may differ)", words)
            save()

    def try_batch(self, num_pictures: int) -> None:
        """Make a batch in few steps and decode it; torch.OutOfMemoryError when it does not fit.

        Unlike `generate` it saves no memory then: whoever asks wants to know.
        """
        prompts = ["a photo."] * num_pictures
        self._generated(prompts, range(num_pictures), num_inference_steps=TRIED_STEPS)

    def _generated(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        **changed: int,
    ) -> Pictures:
        output = self.pipeline(
            list(prompts),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pt",
            **(self._arguments | changed),
        )
        # Rounded where they were made: a byte a value travels, not four.
        levels_BCHW: Tensor = (output.images.float() * 255.0).round().to(torch.uint8)
        images_BHWC = np.ascontiguousarray(levels_BCHW.permute(0, 2, 3, 1).cpu().numpy())
        flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(prompts)
        return Pictures(images_BHWC, [bool(flag) for flag in flagged])


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """fp16 and bf16 are ten times slower than fp32 on most CPUs, hence auto."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _arguments(pipeline: Any, settings: DiffusersSettings) -> dict[str, Any]:  # noqa: ANN401
    """What each call is given, as far as this pipeline knows it."""
    known = inspect.signature(pipeline.__call__).parameters
    wanted = {
        "num_inference_steps": settings.num_steps,
        "guidance_scale": settings.guidance_scale,
        "height": settings.image_size,
        "width": settings.image_size,
    } | dict.fromkeys(QUIET_CHANGES, False)
    return {name: value for name, value in wanted.items() if name in known}


def _mix_in_loras(pipeline: Any, settings: DiffusersSettings) -> None:  # noqa: ANN401
    if not settings.loras:
        return
    names = [f"lora-{number}" for number in range(len(settings.loras))]
    for name, lora in zip(names, settings.loras, strict=True):
        pipeline.load_lora_weights(lora.path, adapter_name=name, use_safetensors=True)
    pipeline.set_adapters(names, [lora.weight for lora in settings.loras])
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()


def _set_safety_checker(pipeline: Any, settings: DiffusersSettings) -> None:  # noqa: ANN401
    if getattr(pipeline, "safety_checker", None) is None:
        if settings.safety_checker == "required":
            raise SettingsError(
                f"{WHERE}.safety_checker: {settings.model} has none; name another pipeline or set "
                "it to model"
            )
    elif settings.safety_checker == "off":
        pipeline.register_modules(safety_checker=None)


def _set_solver(pipeline: Any, settings: DiffusersSettings) -> None:  # noqa: ANN401
    """Put the solver in that was asked for, on the pipeline's own noise schedule."""
    import diffusers

    if settings.solver == "model":
        return
    own, name = pipeline.scheduler, str(settings.solver)
    if diffusers.PNDMScheduler not in own.compatibles or "flow" in own.config.get(
        "prediction_type", ""
    ):  # flow matching: none of the table's can follow it, nor did the released code
        if name == "released":
            return
        raise SettingsError(
            f"{WHERE}.solver: {name} does not fit {type(own).__name__} of {settings.model}; set it "
            "to model"
        )
    if name == "released":
        name = "pndm" if settings.num_steps >= RELEASED_STEPS else "dpm++"
    kind, changes = SOLVERS[name]
    pipeline.scheduler = getattr(diffusers, kind).from_config(own.config, **changes)


def _denoiser(pipeline: Any) -> nn.Module:  # noqa: ANN401
    denoiser: nn.Module = getattr(pipeline, "unet", None) or pipeline.transformer
    return denoiser


def _tune(pipeline: Any, settings: DiffusersSettings) -> None:  # noqa: ANN401
    if settings.channels_last:
        for part in (_denoiser(pipeline), pipeline.vae):
            part.to(memory_format=torch.channels_last)
    if settings.compile:
        _denoiser(pipeline).compile()


def _savings(pipeline: Any) -> list[tuple[str, Callable[[], object]]]:  # noqa: ANN401
    """What saves memory, the cheapest first."""
    savings: list[tuple[str, Callable[[], object]]] = []
    if hasattr(pipeline.vae, "enable_slicing"):
        savings.append(("pictures are decoded one by one", pipeline.vae.enable_slicing))
    if hasattr(pipeline, "enable_attention_slicing"):
        savings.append(("attention is computed in slices", pipeline.enable_attention_slicing))
    return savings
