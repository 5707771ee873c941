"""Which layers of a model get low-rank updates, told before any work from the model's shapes."""

from open_clip.modified_resnet import AttentionPool2d
from torch import nn

from gift_core.errors import SettingsError
from gift_core.freezing import IMAGE_TOWER, Trained
from tasks.models.shapes import shapes_of
from tasks.models.split_attention import split_attention_

_READS_WEIGHTS_ITSELF = (nn.MultiheadAttention, AttentionPool2d)
"""Modules whose linear layers are never called, so that an update of them would change nothing."""


def check_lora(architecture: str, trained: Trained) -> None:
    """SettingsError when the layers to update are not in the model.

    Nothing is said of a model whose shapes are on the hub: it is looked at when it is there.
    """
    clip = shapes_of(architecture)
    if clip is not None:
        lora_targets(clip, trained)


def lora_targets(clip: nn.Module, trained: Trained) -> list[str]:
    """Take the model's attention apart into linear layers; the whole names of those to update.

    Raises SettingsError when no linear layer has a name that was asked for, or a tower that learns
    has none at all.
    """
    split_attention_(clip)
    linear = [name for name in _linear_layers(clip) if trained.learns(name)]
    asked = trained.lora.target_modules if trained.lora else ()
    for tower, of_image in (("image_tower", True), ("text_tower", False)):
        there = any(name.startswith(IMAGE_TOWER) == of_image for name in linear)
        if getattr(trained, tower) and not there:
            raise SettingsError(
                f"finetune.trained.lora: the {tower.replace('_', ' ')} has no linear layer to "
                f"update; set finetune.trained.{tower} to false, or leave lora out"
            )
    unknown = [one for one in asked if not any(_ends(name, one) for name in linear)]
    if unknown:
        ends = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise SettingsError(
            f"finetune.trained.lora.target_modules: {', '.join(unknown)} names no linear "
            f"layer of the towers that learn; their names end in {ends}"
        )
    return [name for name in linear if not asked or any(_ends(name, one) for one in asked)]


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _linear_layers(clip: nn.Module) -> list[str]:
    past = {
        id(child)
        for module in clip.modules()
        if isinstance(module, _READS_WEIGHTS_ITSELF)
        for child in module.modules()
    }
    return [
        name
        for name, module in clip.named_modules()
        if isinstance(module, nn.Linear)
        and id(module) not in past
        and not name.startswith("text_decoder.")
    ]
