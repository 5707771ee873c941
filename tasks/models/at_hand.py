"""How large a model is, and whether its weights are on this machine, without loading anything."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import open_clip
import torch
from torch.utils.flop_counter import FlopCounterMode

from gift_core.errors import GiftError
from tasks.models.adaptation import check_adaptable
from tasks.models.generators import DiffusersSettings, GeneratorSettings
from tasks.models.shapes import shapes_of
from tasks.models.starting_model import CONFIG, HUB, LOCAL_DIR, ModelSettings, check_model


@dataclass(frozen=True)
class ModelSize:
    """Parameters; operations (additions and multiplications) of one forward pass; input bytes.

    A text is counted with all its tokens, `context_length` of them; an image's bytes are those of
    its crop in uint8.
    """

    num_parameters: int
    image_operations: int
    text_operations: int
    context_length: int
    crop_bytes: int


def size_of(settings: ModelSettings) -> ModelSize | None:
    """Count on a model that has shapes alone; None where open_clip does not know the shapes here.

    Attention is counted as torch's counter does, tower by tower, for one image and one text.
    """
    model = shapes_of(settings.architecture)
    if model is None:
        return None
    try:
        with torch.device("meta"), torch.no_grad():
            height, width = _pair(model.visual.image_size)
            with FlopCounterMode(display=False) as image:
                model.encode_image(torch.zeros(1, 3, height, width))
            with FlopCounterMode(display=False) as text:
                model.encode_text(torch.zeros(1, model.context_length, dtype=torch.long))
    # What has shapes may still not compute; check_model says why.
    except Exception:
        return None
    return ModelSize(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        image_operations=image.get_total_flops(),
        text_operations=text.get_total_flops(),
        context_length=model.context_length,
        crop_bytes=3 * height * width,
    )


def missing_model(settings: ModelSettings) -> str | None:
    """What is wrong with a model's settings, or where its weights will come from; None: here."""
    try:
        check_model(settings)
    except GiftError as error:
        return str(error)
    name, tag = settings.architecture, settings.pretrained
    if name.startswith(LOCAL_DIR) or (tag is not None and os.path.isfile(tag)):
        return None
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        here, place = _is_cached(repository, [CONFIG], None), f"{repository} on the hub"
    else:
        config = open_clip.get_pretrained_cfg(name, tag or "")
        repository, file = os.path.split(config.get("hf_hub", ""))
        files = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        url = config.get("url", "")
        kept = Path.home() / ".cache" / "clip" / os.path.basename(url)
        here = bool(repository) and _is_cached(repository, files, None)
        here = here or (bool(url) and kept.is_file())
        place = f"{repository} on the hub" if repository else url
    if here:
        return None
    return (
        f"model: the weights of {name} ({tag or 'its own'}) are not on this machine; "
        f"{_fetched('them', place)}, or name a weights file as model.pretrained"
    )


def missing_generator(settings: GeneratorSettings, adapted: bool = False) -> str | None:
    """What is wrong with a generator's settings, or where it will come from; None: it is here.

    `adapted` says that it shall be adapted to tasks, which not every generator can be.
    """
    try:
        settings.check()
        if adapted:
            check_adaptable(settings)
    except GiftError as error:
        return str(error)
    if not isinstance(settings, DiffusersSettings) or os.path.exists(settings.model):
        return None
    if _is_cached(settings.model, ["model_index.json"], settings.revision):
        return None
    return (
        f"synthesis.generator: {settings.model} is not on this machine; "
        f"{_fetched('it', 'the hub')}, or name its folder as synthesis.generator.model"
    )


def _fetched(them: str, place: str) -> str:
    if huggingface_hub.constants.HF_HUB_OFFLINE and place.endswith("the hub"):
        return f"HF_HUB_OFFLINE keeps the run from fetching {them} from {place}; unset it"
    return f"the run fetches {them} from {place}"


def _is_cached(repository: str, files: Iterable[str], revision: str | None) -> bool:
    found = (
        huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        for file in files
    )
    return any(isinstance(path, str) for path in found)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
