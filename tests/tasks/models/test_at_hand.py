"""Models of a hub: said not to be here, fetched by who needs them, here afterwards.

The hub is on 127.0.0.1 and serves the miniature's models; huggingface_hub, open_clip and diffusers
ask it as they ask theirs. They read where it is when they are imported, hence the processes.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.models.encoders import load_encoder
from tasks.models.generators import DiffusersSettings
from tests.hub import running_hub
from tests.worlds import CLIP, GENERATOR, ROOT

pytestmark = pytest.mark.timeout(200)

FETCH = """
import json, sys
from pathlib import Path
import torch
from gift_core.errors import SettingsError
from tasks.models.at_hand import missing_generator, missing_model
from tasks.models.encoders import export_pretrained, load_encoder
from tasks.models.generators import DiffusersSettings
from tasks.models.starting_model import ModelSettings

def missing():
    return [missing_model(model), missing_generator(generator)]

def said(call, *arguments):
    try:
        return call(*arguments)
    except SettingsError as error:
        return str(error)

def made(loaded):
    return loaded if isinstance(loaded, str) else loaded.generate(["a red circle"], [3])

folder, told = Path(sys.argv[1]), {}
for name in sys.argv[2:]:
    model = ModelSettings(architecture=f"hf-hub:{name}-clip")
    sizes = {"num_steps": 2, "image_size": 32, "solver": "model", "batch_size": 1}
    generator = DiffusersSettings(model=f"{name}-generator", **sizes)
    (folder / name).mkdir(parents=True)
    before = missing()
    exported = said(export_pretrained, model, folder / name)
    picture = made(said(generator.load, torch.device("cpu")))
    if not isinstance(picture, str):
        picture = picture.images.tolist()
    told[name] = {"before": before, "model": exported, "picture": picture, "after": missing()}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the hub is; its model names its tokenizer as a model of a hub does."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(CLIP, folder / "team" / "small-clip")
    shutil.copytree(GENERATOR, folder / "team" / "small-generator")
    config = folder / "team" / "small-clip" / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "team/small-clip"
    config.write_text(json.dumps(content))
    with running_hub(folder) as url:
        yield url


def fetched(home: Path, folder: Path, *names: str, **environment: str) -> dict[str, Any]:
    """What a process says that fetches these, with the cache of downloads in `home`."""
    settings = {"HF_HOME": str(home), "PYTHONPATH": str(ROOT)} | environment
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", FETCH, str(folder), *names]
    done = subprocess.run(command, env=inherited | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def features(folder: Path) -> Tensor:
    """Of two texts, by a model in a folder; this process knows no hub and has no downloads."""
    encoder = load_encoder(folder, torch.device("cpu"))
    with torch.no_grad():
        return encoder.model.encode_text(encoder.tokenize(["a red circle", "a blue star"]))


def assert_refused(told: dict[str, Any], offline: bool = False) -> None:
    """Both in a sentence that says what to do, and still missing."""
    model = "model: open_clip could not load hf-hub:team/none-clip (its own weights): "
    assert told["model"].startswith(model)
    generator = "synthesis.generator.model: diffusers could not load team/none-generator: "
    assert told["picture"].startswith(generator)
    for sentence in (told["model"], told["picture"]):
        assert sentence.endswith(", or name a folder")
        assert len(sentence.splitlines()) == 1
    assert all("not on this machine" in sentence for sentence in told["after"])
    words = "HF_HUB_OFFLINE keeps the run from fetching" if offline else "the run fetches"
    assert all(words in sentence for sentence in told["before"])


def test_models_of_a_hub_are_fetched_once_and_equal_those_of_folders(
    hub: str, tmp_path: Path
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "exported"
    told = fetched(cache, folder, "team/small", "team/none", HF_ENDPOINT=hub)
    model, generator = told["team/small"]["before"]
    assert "the run fetches them from team/small-clip on the hub" in model
    assert "team/small-generator is not on this machine; the run fetches it" in generator
    assert told["team/small"]["after"] == [None, None]
    assert_refused(told["team/none"])

    again = fetched(cache, tmp_path / "again", "team/small", HF_HUB_OFFLINE="1")["team/small"]
    assert again["before"] == [None, None]
    assert again["picture"] == told["team/small"]["picture"]
    sizes = {"num_steps": 2, "image_size": 32, "solver": "model", "batch_size": 1}
    local = DiffusersSettings(model=str(GENERATOR), **sizes).load(torch.device("cpu"))
    assert again["picture"] == local.generate(["a red circle"], [3]).images.tolist()
    for exported in (folder / "team/small", tmp_path / "again" / "team/small"):
        assert torch.equal(features(exported), features(CLIP))


def test_offline_a_sentence_says_so(tmp_path: Path) -> None:
    told = fetched(tmp_path / "cache", tmp_path / "out", "team/none", HF_HUB_OFFLINE="1")
    assert_refused(told["team/none"], offline=True)
