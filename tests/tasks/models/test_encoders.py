"""open_clip models: refused, loaded and kept, on the formats that open_clip itself writes."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gift_core.errors import SettingsError, StoreError
from tasks.models.encoders import export_pretrained, export_tuned, load_encoder
from tasks.models.starting_model import ModelSettings, check_model
from tests.worlds import CLIP, square

CPU = torch.device("cpu")
LOCAL = ModelSettings(architecture=f"local-dir:{CLIP}")


def test_export_opens_unchanged_in_open_clip(tmp_path: Path) -> None:
    export_pretrained(LOCAL, tmp_path)
    ours = load_encoder(tmp_path, CPU)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = ["a photo of a red star.", "a sketch of a ring."]
    image = Image.fromarray(square("red", 3)).resize((40, 50))
    with torch.no_grad():
        assert torch.allclose(
            ours.model.encode_text(ours.tokenize(texts)),
            theirs.encode_text(tokenizer(texts)),
            atol=1e-5,
        )
        seen = ours.normalise(ours.crop(image)[None])
        assert torch.allclose(seen, preprocess(image)[None], atol=1e-6)
        assert torch.allclose(
            ours.model.encode_image(seen), theirs.encode_image(preprocess(image)[None]), atol=1e-5
        )


def test_tuned_model_keeps_everything_but_its_weights(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    export_pretrained(LOCAL, parent)
    encoder = load_encoder(parent, CPU)
    with torch.no_grad():
        encoder.model.clip.visual.proj.add_(1.0)
    export_tuned(encoder.model, parent, child)
    assert {p.name for p in child.iterdir()} == {p.name for p in parent.iterdir()}
    before, after = (
        load_file(folder / "open_clip_model.safetensors") for folder in (parent, child)
    )
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["visual.proj"]
    assert not load_encoder(child, CPU).model.logit_scale.requires_grad


@pytest.fixture(scope="module")
def small_named(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model name that open_clip knows, made small, with a weights file of it."""
    folder = tmp_path_factory.mktemp("named")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    (folder / "gift-small.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "gift-small.json")
    model = open_clip.create_model("gift-small")
    save_file(model.state_dict(), folder / "small.safetensors")
    return "gift-small", folder / "small.safetensors"


def test_named_model_with_a_weights_file(tmp_path: Path, small_named: tuple[str, Path]) -> None:
    name, weights = small_named
    settings = ModelSettings(architecture=name, pretrained=str(weights))
    assert check_model(settings).startswith(f"{name}:")
    export_pretrained(settings, tmp_path)
    loaded = load_encoder(tmp_path, CPU)
    for key, tensor in load_file(weights).items():
        assert torch.equal(loaded.model.clip.state_dict()[key], tensor)
    assert loaded.tokenize(["a cat"]).shape == (1, 77)


def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, small_named: tuple[str, Path]
) -> None:
    settings = ModelSettings(architecture="RN50", pretrained=str(small_named[1]))
    with pytest.raises(SettingsError, match="open_clip could not load RN50") as caught:
        export_pretrained(settings, tmp_path)
    assert "\n" not in str(caught.value)


def test_torn_model_is_refused(tmp_path: Path) -> None:
    export_pretrained(LOCAL, tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StoreError, match="not a model that open_clip can load"):
        load_encoder(tmp_path, CPU)
