"""Low-rank updates of a model that is being fine-tuned, by peft, and their way into its weights."""

import re

from open_clip.modified_resnet import AttentionPool2d
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn

from gift_core.errors import SettingsError
from gift_core.freezing import IMAGE_TOWER, Trained
from tasks.models.split_attention import join_attention_, split_attention_
from tasks.models.towers import Towers

_READS_WEIGHTS_ITSELF = (nn.MultiheadAttention, AttentionPool2d)
"""Modules whose linear layers are never called, so that an update of them would change nothing."""


class LowRankUpdates:
    """The updates of one model, which trains nothing else from now on.

    They draw from torch's generator. Raises SettingsError when no linear layer has a name that was
    asked for, or a tower that learns has none at all.
    """

    def __init__(self, model: Towers, trained: Trained) -> None:
        if trained.lora is None:
            raise ValueError("no low-rank updates are asked for")
        settings, self._clip = trained.lora, model.clip
        split_attention_(self._clip)
        names = _targets(self._clip, trained)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules="|".join(map(re.escape, names)),
            lora_dropout=0.0,
            bias="none",
        )
        self._updates = LoraModel(self._clip, config, "default")

    def merge_(self) -> None:
        """Add the updates to the weights: the model is then open_clip's own again, name by name."""
        self._updates.merge_and_unload()
        join_attention_(self._clip)


def _targets(clip: nn.Module, trained: Trained) -> list[str]:
    """The whole names of the layers to update."""
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
