"""open_clip models: loading one, and keeping it in open_clip's own `local-dir:` form.

open_clip takes seconds to import and torch one: both are imported where a model is loaded, so that
whoever plans, dispatches or finds what stands does without.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gift_core.errors import GiftError, SettingsError, StoreError
from tasks.models.starting_model import (
    CONFIG,
    LOCAL_DIR,
    TEXT_CONFIG,
    WEIGHTS,
    ModelSettings,
    bounded_json,
    check_local_dir,
    text_config,
)
from tasks.models.weights import as_safetensors, why_not_fetched
from tasks.scratch import scratch_folder
from tasks.store.checkpoints import save_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from PIL import Image
    from torch import Tensor, nn

    from tasks.models.towers import Towers


@dataclass(frozen=True)
class Encoder:
    """A model with everything that turns pictures and words into its inputs.

    `tokenize` gives token numbers int64 (number of texts, L) on the CPU, where `model` wants them.
    `crop` (deterministic, named by `fingerprint`) and `augment` (random, torch's generator) take a
    PIL image in RGB and give a uint8 tensor (3, H, W); `normalise` takes a batch of those to what
    the model sees.
    """

    model: Towers
    tokenize: Callable[[Sequence[str]], Tensor]
    crop: Callable[[Image.Image], Tensor]
    augment: Callable[[Image.Image], Tensor]
    fingerprint: str
    mean_C11: Tensor
    std_C11: Tensor
    device: torch.device

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) on any device to normalised fp32 on the model's device."""
        scaled_BCHW = images_BCHW.to(self.device).float() / 255.0
        return (scaled_BCHW - self.mean_C11) / self.std_C11


def best_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(folder: Path, device: torch.device) -> Encoder:
    """Load a model kept by `export_pretrained` or `export_tuned`; StoreError when it cannot be."""
    try:
        check_local_dir(folder)
        return _load(f"{LOCAL_DIR}{folder}", None, device)
    # A model that is not what its config says fails anywhere in open_clip.
    except Exception as error:
        raise StoreError(f"{folder}: not a model that open_clip can load ({error})") from error


def export_pretrained(settings: ModelSettings, folder: Path) -> None:
    """Write theta_0 to `folder` in `local-dir:` form, fp32; SettingsError when it cannot be had."""
    import torch

    name, weights = settings.architecture, settings.pretrained
    file = Path(weights) if weights is not None and os.path.isfile(weights) else None
    try:
        with scratch_folder() as temporary:
            read = weights if file is None else str(as_safetensors(file, temporary))
            encoder = _load(name, read, torch.device("cpu"))
    except GiftError:
        raise
    except Exception as error:  # as above
        local = name.startswith(LOCAL_DIR) or file is not None
        raise SettingsError(
            f"model: open_clip could not load {name} ({weights or 'its own weights'}): "
            f"{error if local else why_not_fetched(error)}"
        ) from error
    if name.startswith(LOCAL_DIR):
        _copy_all_but_weights(Path(name.removeprefix(LOCAL_DIR)), folder)
    else:
        _write_config(name, encoder.model.clip, folder)
    _write_text_config(encoder.model.clip, folder)
    _write_weights(encoder.model.clip, folder)


def export_tuned(model: Towers, parent_folder: Path, folder: Path) -> None:
    """Write a fine-tuned model to `folder`: its weights, all else from its parent's folder."""
    _copy_all_but_weights(parent_folder, folder)
    _write_weights(model.clip, folder)


def _load(name: str, pretrained: str | None, device: torch.device) -> Encoder:
    import open_clip
    import torch

    from gift_core.features import freeze_logit_scale_
    from tasks.models.preprocessing import preprocessing_of
    from tasks.models.towers import Towers

    model, augmentation, preprocessing = open_clip.create_model_and_transforms(
        name,
        pretrained=pretrained,
        device=device,
        precision="fp32",
        weights_only=True,
        **_own_text_config(name),
    )
    freeze_logit_scale_(model)
    pictures = preprocessing_of(augmentation, preprocessing)
    mean, std = pictures.normalisation
    tokenizer = open_clip.get_tokenizer(name)

    def tokenize(texts: Sequence[str]) -> Tensor:
        return torch.as_tensor(tokenizer(list(texts)))

    return Encoder(
        model=Towers(model),
        tokenize=tokenize,
        crop=pictures.crop,
        augment=pictures.augment,
        fingerprint=pictures.fingerprint,
        mean_C11=torch.tensor(mean, device=device).view(-1, 1, 1),
        std_C11=torch.tensor(std, device=device).view(-1, 1, 1),
        device=device,
    )


def _own_text_config(name: str) -> dict[str, dict[str, Any]]:
    """For open_clip: build a kept model's text tower from the kept config, not from the hub's."""
    if not name.startswith(LOCAL_DIR):
        return {}
    folder = Path(name.removeprefix(LOCAL_DIR))
    config = bounded_json(folder / CONFIG)
    if text_config(folder, config) is None:
        return {}
    kept = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": config["model_cfg"]["text_cfg"] | kept}


def _copy_all_but_weights(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in {".safetensors", ".bin", ".pth", ".pt"}:
            shutil.copyfile(path, folder / path.name)


def _write_config(name: str, model: nn.Module, folder: Path) -> None:
    """open_clip's own config of a named model; a Hugging Face tokenizer is kept beside it."""
    import open_clip

    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": dict(model.visual.preprocess_cfg),
    }
    tokenizer = open_clip.get_tokenizer(name)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        tokenizer.save_pretrained(folder)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write_text_config(model: nn.Module, folder: Path) -> None:
    from open_clip.hf_model import HFTextEncoder

    text = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        (folder / TEXT_CONFIG).write_text(text.config.to_json_string())


def _write_weights(model: nn.Module, folder: Path) -> None:
    save_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
