"""Low-rank updates of a model that is being fine-tuned, by peft, and their way into its weights."""

import re

from peft import LoraConfig
from peft.tuners.lora import LoraModel

from gift_core.freezing import Trained
from tasks.models.lora_targets import lora_targets
from tasks.models.split_attention import join_attention_
from tasks.models.towers import Towers


class LowRankUpdates:
    """The updates of one model, which trains nothing else from now on.

    They draw from torch's generator. Raises SettingsError when no linear layer has a name that was
    asked for, or a tower that learns has none at all.
    """

    def __init__(self, model: Towers, trained: Trained) -> None:
        if trained.lora is None:
            raise ValueError("no low-rank updates are asked for")
        settings, self._clip = trained.lora, model.clip
        names = lora_targets(self._clip, trained)
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
