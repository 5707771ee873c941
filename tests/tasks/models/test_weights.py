"""Weights files of others: read where they are tensors, else refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gift_core.errors import SettingsError
from tasks.models.weights import as_safetensors, check_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "logit_scale": torch.tensor(4.6)}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": WEIGHTS},
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 3},
        {"state_dict": {f"module.{name}": value for name, value in WEIGHTS.items()}},
        {f"module.model.{name}": value for name, value in WEIGHTS.items()},
        {**WEIGHTS, "input_resolution": torch.tensor(224), "vocab_size": torch.tensor(49408)},
    ],
    ids=[
        "released code",
        "bare",
        "under model",
        "DataParallel",
        "two wrappers",
        "OpenAI's numbers",
    ],
)
def test_a_state_dict_is_found_wherever_it_is_kept(tmp_path: Path, content: Any) -> None:  # noqa: ANN401
    torch.save(content, tmp_path / "aircraft.pth")
    check_weights(tmp_path / "aircraft.pth")
    found = load_file(as_safetensors(tmp_path / "aircraft.pth", tmp_path))
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def refused(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        check_weights(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert f"{path} holds no weights that can be read safely" in sentence
    return sentence


def test_what_is_no_state_dict_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(nn.Linear(2, 2), path)
    assert "a whole module, or a program" in refused(path)
    torch.save({"state_dict": {"a": 3}}, path)
    assert "it holds no state dict" in refused(path)
    torch.save([torch.zeros(1)], path)
    assert "it holds no state dict" in refused(path)
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "TorchScript archive" in refused(path)
    path.write_bytes(b"no weights")
    refused(path)
    path.rename(tmp_path / "model.safetensors")
    assert "take the file anew" in refused(tmp_path / "model.safetensors")
