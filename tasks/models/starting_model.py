"""Which model a sequence starts from, and whether it may be loaded: looked at, not loaded.

open_clip takes seconds to import and is imported where it is asked: a model in a folder is known by
its files.
"""

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field

from gift_core.errors import SettingsError
from gift_core.settings import Settings
from tasks.digests import digest_of_files, sha256_of_file
from tasks.models.weights import check_weights

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


def check_model(settings: ModelSettings) -> str:
    """Say what the model is (a digest for local files), or refuse it with SettingsError.

    Nothing is downloaded: a tag that open_clip knows counts as there.
    """
    name = settings.architecture
    if name.startswith(LOCAL_DIR):
        return check_local_dir(Path(name.removeprefix(LOCAL_DIR)))
    if name.startswith(HUB):
        return name
    import open_clip

    if name not in (known := open_clip.list_models()):
        near = " or ".join(get_close_matches(name, known, 2)) or "local-dir:FOLDER for one of yours"
        raise SettingsError(
            f"model.architecture: open_clip knows no model {name!r}; did you mean {near}? "
            "open_clip.list_models() lists the names"
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


def check_local_dir(folder: Path) -> str:
    """Say which model lies in a folder, a digest; SettingsError when it is none."""
    if not folder.is_dir():
        raise SettingsError(
            f"model.architecture: there is no folder {folder}; name one in open_clip's local-dir "
            f"form, with {CONFIG} and {WEIGHTS}"
        )
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
        config = bounded_json(path)
        parts = [config["model_cfg"][name] for name in ("vision_cfg", "text_cfg")]
        _check_numbers(config["model_cfg"])
        if (text := text_config(path.parent, config)) is not None:
            _check_numbers(text)
            parts.append({"layers": text.get("num_hidden_layers", 0)})
        if any(layers > MAX_LAYERS for part in parts for layers in _layers(part)):
            raise ValueError(f"more than {MAX_LAYERS} layers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingsError(
            f"model.architecture: {path} is no config of an open_clip model ({error!r}); "
            "take the one that belongs to the weights"
        ) from None


def bounded_json(path: Path) -> dict[str, Any]:
    """A config as it was read; OSError or ValueError when there is none, or it is too long."""
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
    import open_clip

    return ", ".join(open_clip.list_pretrained_tags_by_model(name)[:6]) or "none"


def text_config(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The kept config of a text tower of transformers; other files may bear its name."""
    path = folder / TEXT_CONFIG
    if "hf_model_name" not in config["model_cfg"]["text_cfg"] or not os.path.isfile(path):
        return None
    from open_clip.hf_configs import arch_dict

    text = bounded_json(path)
    return text if text.get("model_type") in arch_dict else None
