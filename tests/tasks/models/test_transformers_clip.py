"""An exported `CLIPModel` is the model: features, tokens and pixels, without any network."""

import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPProcessor

from gift_core.errors import SettingsError
from tasks.models.encoders import export_pretrained, load_encoder
from tasks.models.starting_model import ModelSettings
from tasks.models.transformers_clip import export_transformers
from tests.tasks.models.families import FAMILIES, TEXT, write_family

TEXTS = ["a photo of a red star.", "It's  A sketch of 12 rings?", "moon"]
BPE = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
OF_OPENAI = {"vision_cfg": FAMILIES["CLIP"]["vision_cfg"], "text_cfg": BPE, "quick_gelu": True}


def exported(settings: ModelSettings, place: Path) -> tuple[Path, Path]:
    """The model in our form and in transformers'."""
    ours, theirs = place / "ours", place / "theirs"
    ours.mkdir()
    theirs.mkdir()
    export_pretrained(settings, ours)
    export_transformers(ours, theirs)
    return ours, theirs


def openai_form(place: Path) -> ModelSettings:
    """A model of OpenAI's form with open_clip's own tokenizer, in small."""
    import json

    (place / "gift-openai-form.json").write_text(json.dumps({"embed_dim": 24} | OF_OPENAI))
    open_clip.add_model_config(place / "gift-openai-form.json")
    torch.manual_seed(0)
    model = open_clip.create_model("gift-openai-form")
    save_file(model.state_dict(), place / "weights.safetensors")
    return ModelSettings(
        architecture="gift-openai-form", pretrained=str(place / "weights.safetensors")
    )


def umask() -> int:
    """What this process takes from the mode of a new file."""
    os.umask(mask := os.umask(0))
    return mask


@pytest.mark.parametrize("form", ["OpenAI's", "CLIP", "CustomTextCLIP", "argmax"])
@torch.no_grad()
def test_features_tokens_and_pixels_are_equal(form: str, tmp_path: Path) -> None:
    if form == "OpenAI's":
        settings = openai_form(tmp_path)
    elif form == "argmax":
        settings = write_family("CLIP", tmp_path / "model", text_cfg=TEXT | {"pool_type": "argmax"})
    else:
        settings = write_family(form, tmp_path / "model")
    ours, theirs = exported(settings, tmp_path)
    encoder = load_encoder(ours, torch.device("cpu"))
    encoder.model.eval()
    assert {path.stat().st_mode & 0o777 for path in theirs.iterdir()} == {0o666 & ~umask()}
    model = CLIPModel.from_pretrained(theirs).eval()
    processor = CLIPProcessor.from_pretrained(theirs, backend="pil")
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((140, 97))
    inputs = processor(text=TEXTS, images=[picture], return_tensors="pt", padding=True)
    pixels, tokens = encoder.normalise(encoder.crop(picture)[None]), encoder.tokenize(TEXTS)
    torch.testing.assert_close(inputs["pixel_values"], pixels, rtol=0, atol=1e-6)
    for found, row in zip(inputs["input_ids"], tokens, strict=True):
        length = int(row.ne(0).sum())
        assert found[:length].tolist() == row[:length].tolist()
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for one, other in (
        (encoder.model.encode_image(pixels), model.get_image_features(pixels)),
        (encoder.model.encode_text(tokens), model.get_text_features(**words)),
        (encoder.model.encode_text(tokens), model.get_text_features(tokens)),
    ):
        assert one.abs().max() > 1e-2
        torch.testing.assert_close(other.pooler_output, one, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.logit_scale, encoder.model.logit_scale.detach())


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("SigLIP", "it has a logit_bias (a sigmoid model: SigLIP)"),
        ("MobileCLIP", "its image tower (FastVit) is no vision transformer"),
        ("HF text", "its text tower (RobertaModel) is no causal transformer"),
        ("CoCa", "it is a CoCa"),
    ],
)
def test_what_no_clip_model_can_be_is_named(family: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CLIPModel cannot be this model") as caught:
        exported(write_family(family, tmp_path / "model"), tmp_path)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("export it as open-clip")
    assert not list((tmp_path / "theirs").iterdir())
