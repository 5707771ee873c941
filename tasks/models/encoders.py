"""open_clip models: which one, loading it, and keeping it in open_clip's own `local-dir:` form."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from gift_core.errors import GiftError, SettingsError, StoreError
from gift_core.features import freeze_logit_scale_
from gift_core.settings import Settings
from tasks.digests import digest_of_files, sha256_of_file
from tasks.models.preprocessing import preprocessing_of
from tasks.models.towers import Towers
from tasks.models.weights import as_safetensors, check_weights
from tasks.store.checkpoints import save_tensors

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
TEXT_CONFIG = "config.json"
"""Of a text tower that transformers builds, kept so that nothing is asked of the hub."""
MAX_CONFIG_BYTES = 1_000_000
MAX_CONFIG_NUMBER = 1_000_000
MAX_LAYERS = 1000
LOCAL_DIR = "local-dir:"
HUB = "hf-hub:"


class ModelSettings(Settings):
    """The pretrained model that a sequence starts from, as open_clip names it."""

    architecture: str = Field(
        min_length=1,
        description="An open_clip model name (ViT-B-16), local-dir:FOLDER or hf-hub:ORG/REPO "
        "(paper: ViT-B-16)",
    )
    pretrained: str | None = Field(
        default=None,
        description="An open_clip pretrained tag (openai) or a weights file; "
        "not used with local-dir: and hf-hub:",
    )


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
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_model(settings: ModelSettings) -> str:
    """Say what the model is (a digest for local files), or refuse it with SettingsError.

    Nothing is downloaded: a tag that open_clip knows counts as there.
    """
    name = settings.architecture
    if name.startswith(LOCAL_DIR):
        return _check_local_dir(Path(name.removeprefix(LOCAL_DIR)))
    if name.startswith(HUB):
        return name
    if name not in open_clip.list_models():
        raise SettingsError(
            f"model.architecture: open_clip knows no model {name!r}; "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists the names"
        )
    if settings.pretrained is None:
        raise SettingsError(
            f"model.pretrained: {name} needs a pretrained tag or a weights file, "
            f"for example one of {_shown_tags(name)}"
        )
    if os.path.isfile(settings.pretrained):
        check_weights(Path(settings.pretrained))
        return f"{name}:{sha256_of_file(Path(settings.pretrained))}"
    if open_clip.get_pretrained_cfg(name, settings.pretrained):
        return f"{name}:{settings.pretrained}"
    raise SettingsError(
        f"model.pretrained: {settings.pretrained!r} is neither a file nor a tag of {name}; "
        f"tags: {_shown_tags(name)}"
    )


def _check_local_dir(folder: Path) -> str:
    for name in (CONFIG, WEIGHTS):
        if not os.path.isfile(folder / name):
            raise SettingsError(
                f"model.architecture: {folder} holds no {name}, "
                "so it is not a model in open_clip's local-dir form"
            )
    _check_config(folder / CONFIG)
    check_weights(folder / WEIGHTS)
    return digest_of_files(folder)


def _check_config(path: Path) -> None:
    """SettingsError for a config that is none, or that would build a model without end."""
    try:
        config = _bounded_json(path)
        parts = [config["model_cfg"][name] for name in ("vision_cfg", "text_cfg")]
        _check_numbers(config["model_cfg"])
        if (text := _text_config(path.parent, config)) is not None:
            _check_numbers(text)
            parts.append({"layers": text.get("num_hidden_layers", 0)})
        if any(layers > MAX_LAYERS for part in parts for layers in _layers(part)):
            raise ValueError(f"more than {MAX_LAYERS} layers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingsError(
            f"model.architecture: {path} is no config of an open_clip model ({error!r}); "
            "take the one that belongs to the weights"
        ) from None


def _bounded_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_CONFIG_BYTES:,} bytes")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _layers(part: dict[str, Any]) -> list[int]:
    layers = part.get("layers", 0)
    return layers if isinstance(layers, list) else [layers]  # a ResNet has a list of four


def _check_numbers(value: object) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_numbers(inner)
    elif isinstance(value, int | float) and not abs(value) <= MAX_CONFIG_NUMBER:
        raise ValueError(f"it holds the number {value}")


def _shown_tags(name: str) -> str:
    return ", ".join(open_clip.list_pretrained_tags_by_model(name)[:6]) or "none"


def load_encoder(folder: Path, device: torch.device) -> Encoder:
    """Load a model kept by `export_pretrained` or `export_tuned`; StoreError when it cannot be."""
    try:
        _check_local_dir(folder)
        return _load(f"{LOCAL_DIR}{folder}", None, device)
    # A model that is not what its config says fails anywhere in open_clip.
    except Exception as error:
        raise StoreError(f"{folder}: not a model that open_clip can load ({error})") from error


def export_pretrained(settings: ModelSettings, folder: Path) -> None:
    """Write theta_0 to `folder` in `local-dir:` form, fp32; SettingsError when it cannot be had."""
    try:
        with TemporaryDirectory(prefix="gift-") as temporary:
            weights = settings.pretrained
            if weights is not None and os.path.isfile(weights):
                weights = str(as_safetensors(Path(weights), Path(temporary)))
            encoder = _load(settings.architecture, weights, torch.device("cpu"))
    except GiftError:
        raise
    except Exception as error:  # as above
        raise SettingsError(
            f"model: open_clip could not load {settings.architecture} "
            f"({settings.pretrained or 'its own weights'}): {error}"
        ) from error
    if settings.architecture.startswith(LOCAL_DIR):
        _copy_all_but_weights(Path(settings.architecture.removeprefix(LOCAL_DIR)), folder)
    else:
        _write_config(settings.architecture, encoder.model.clip, folder)
    _write_text_config(encoder.model.clip, folder)
    _write_weights(encoder.model.clip, folder)


def export_tuned(model: Towers, parent_folder: Path, folder: Path) -> None:
    """Write a fine-tuned model to `folder`: its weights, all else from its parent's folder."""
    _copy_all_but_weights(parent_folder, folder)
    _write_weights(model.clip, folder)


def _load(name: str, pretrained: str | None, device: torch.device) -> Encoder:
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
    config = _bounded_json(folder / CONFIG)
    if _text_config(folder, config) is None:
        return {}
    kept = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": config["model_cfg"]["text_cfg"] | kept}


def _text_config(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The kept config of a text tower of transformers; other files may bear its name."""
    path = folder / TEXT_CONFIG
    if "hf_model_name" not in config["model_cfg"]["text_cfg"] or not os.path.isfile(path):
        return None
    text = _bounded_json(path)
    return text if text.get("model_type") in arch_dict else None


def _copy_all_but_weights(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in {".safetensors", ".bin", ".pth", ".pt"}:
            shutil.copyfile(path, folder / path.name)


def _write_config(name: str, model: nn.Module, folder: Path) -> None:
    """open_clip's own config of a named model; a Hugging Face tokenizer is kept beside it."""
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": dict(model.visual.preprocess_cfg),
    }
    tokenizer = open_clip.get_tokenizer(name)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        tokenizer.save_pretrained(folder)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write_text_config(model: nn.Module, folder: Path) -> None:
    text = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        (folder / TEXT_CONFIG).write_text(text.config.to_json_string())


def _write_weights(model: nn.Module, folder: Path) -> None:
    save_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
