"""Weights files as others leave them, read without running what they hold.

The code of GIFT and ZSCL keeps `{"state_dict": ...}` of OpenAI's CLIP in a `.pth`; others keep the
state dict itself, or that of a model in a wrapper.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from gift_core.errors import SettingsError, one_line
from tasks.store.checkpoints import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

KEYS = ("state_dict", "model_state_dict", "model")
"""Under which a file may keep the state dict, tried in this order."""
WRAPPERS = ("module.", "model.")
"""What DataParallel and the like put before every name."""
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
"""Numbers that OpenAI's own files have among the weights."""


def why_not_fetched(error: Exception) -> str:
    """What a library said of something that it fetches from a hub, and what there is to do."""
    said = one_line(str(error)).rstrip(". ")
    return (
        f"{said}; check the name and whether the hub can be reached (HF_HUB_OFFLINE=1 asks nobody, "
        "a private model needs HF_TOKEN), or name a folder"
    )


def check_weights(path: Path) -> None:
    """SettingsError for weights that are not tensors alone: a pickle may hold a program."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            raise _refused(path, str(error), "take the file anew from where it comes") from None
    else:
        _read_pickled(path, "meta")


def as_safetensors(path: Path, folder: Path) -> Path:
    """Give a weights file as safetensors that open_clip reads: itself, or a copy in `folder`.

    The copy has the weights alone, under open_clip's names for a model of OpenAI's form. Raises
    SettingsError as `check_weights` does.
    """
    if path.suffix == ".safetensors":
        return path
    copy = folder / "weights.safetensors"
    save_tensors(copy, _read_pickled(path, "cpu"), {})
    return copy


def _read_pickled(path: Path, device: str) -> dict[str, Tensor]:
    import torch

    script = "it is a TorchScript archive, as OpenAI's own files are"
    try:
        if _is_torchscript(path):
            raise _refused(path, script, "name the tag openai, or save the model's state dict")
        content = torch.load(path, map_location=device, weights_only=True)
    except SettingsError:
        raise
    except Exception as error:  # a file can be wrong in as many ways as there are bytes
        if type(error).__name__ == "UnpicklingError" and zipfile.is_zipfile(path):
            reason = "it holds more than tensors: a whole module, or a program"
            remedy = "load it where it was made and save model.state_dict()"
            raise _refused(path, reason, remedy) from None
        raise _refused(path, one_line(str(error)), "take it anew from where it comes") from None
    weights = _state_dict(content)
    if weights is None:
        raise _refused(path, "it holds no state dict", "save model.state_dict() alone")
    return _unwrapped(weights)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state_dict(content: Any) -> dict[str, Tensor] | None:  # noqa: ANN401 - whatever a file holds
    """The state dict in what a file holds, if there is one."""
    from torch import Tensor

    if not isinstance(content, Mapping):
        return None
    for key in KEYS:
        if isinstance(content.get(key), Mapping):
            return _state_dict(content[key])
    weights = {name: value for name, value in content.items() if name not in NOT_WEIGHTS}
    named = all(isinstance(name, str) for name in weights)
    tensors = all(isinstance(value, Tensor) for value in weights.values())
    return weights if weights and named and tensors else None


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): value for name, value in weights.items()}
    return weights


def _refused(path: Path, reason: str, remedy: str) -> SettingsError:
    return SettingsError(
        f"model: {path} holds no weights that can be read safely ({reason}); {remedy}"
    )
