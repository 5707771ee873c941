"""Models and pictures made to run a program, to fill the memory, or to be waited for."""

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from gift_core.errors import DataError, GiftError, SettingsError, StoreError
from tasks.data.sources import ImageFolderData
from tasks.images import decode_rgb
from tasks.models.encoders import export_pretrained, load_encoder
from tasks.models.generators import DiffusersSettings
from tasks.models.starting_model import ModelSettings, check_model
from tests.hostile.harness import within
from tests.worlds import CLIP, GENERATOR, png, square


class Program:
    """What pickle turns into a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.pth", "weights"])
def test_weights_that_hold_a_program_are_refused_and_it_does_not_run(
    tmp_path: Path, name: str
) -> None:
    weights, mark = tmp_path / name, tmp_path / "mark"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Program(mark)}, weights)
    settings = ModelSettings(architecture="RN50", pretrained=str(weights))
    for use in (check_model, lambda each: export_pretrained(each, tmp_path)):
        with pytest.raises(SettingsError, match="holds no weights that can be read safely"):
            use(settings)
    assert not mark.exists()


def test_weights_of_tensors_alone_are_taken_whatever_their_suffix(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    settings = ModelSettings(architecture="RN50", pretrained=str(tmp_path / "weights.pt"))
    assert check_model(settings).startswith("RN50:")


def test_a_stored_model_without_safetensors_is_not_loaded(tmp_path: Path) -> None:
    for path in CLIP.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "open_clip_model.safetensors").unlink()
    torch.save({"x": Program(tmp_path / "mark")}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(StoreError, match="holds no open_clip_model"):
        load_encoder(tmp_path, torch.device("cpu"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "layers", 10**6),
        ("vision_cfg", "width", 10**9),
        ("text_cfg", "layers", 10**9),
    ],
)
def test_configs_of_endless_models_are_refused(
    tmp_path: Path, part: str, key: str, value: int
) -> None:
    config = json.loads((CLIP / "open_clip_config.json").read_text())
    config["model_cfg"][part][key] = value
    shutil.copyfile(CLIP / "open_clip_model.safetensors", tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with within(4), pytest.raises(SettingsError, match="is no config of an open_clip model"):
        check_model(ModelSettings(architecture=f"local-dir:{tmp_path}"))


def test_a_pipeline_cannot_name_modules_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What diffusers does with a module that an index names is import it, which runs it."""
    pipeline, mark = tmp_path / "pipeline", tmp_path / "mark"
    shutil.copytree(GENERATOR, pipeline)
    (tmp_path / "hostile_module.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    index = json.loads((pipeline / "model_index.json").read_text())
    index["unet"] = ["hostile_module", "UNet2DConditionModel"]
    (pipeline / "model_index.json").write_text(json.dumps(index))
    settings = DiffusersSettings(model=str(pipeline))
    for use in (settings.check, lambda: settings.load(torch.device("cpu"))):
        with pytest.raises(SettingsError, match="takes unet from hostile_module"):
            use()
    assert not mark.exists()


@pytest.mark.parametrize("name", ["AutoencoderKL", "logging", "__loader__", "NoSuchPipeline"])
def test_a_pipeline_must_be_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(SettingsError, match="names the pipeline"):
        DiffusersSettings(model=str(tmp_path)).check()


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def bombs() -> dict[str, bytes]:
    """Small files that claim, or unpack to, hundreds of megabytes; and one that is a program."""
    picture, many = png(square("red", 1)), zlib.compress(bytes(200_000_000))
    huge = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2, 8, 2, 0, 0, 0)
    )
    flat = io.BytesIO()
    Image.new("L", (9000, 9000)).save(flat, format="GIF")
    return {
        "png-claims": huge + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "png-text": picture[:33] + chunk(b"zTXt", b"a\0\0" + many) + picture[33:],
        "png-profile": picture[:33] + chunk(b"iCCP", b"a\0\0" + many) + picture[33:],
        "gif-of-81-megapixels": flat.getvalue(),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n",
        "nothing": b"",
    }


@pytest.mark.parametrize(("name", "data"), bombs().items(), ids=bombs())
def test_picture_bombs(name: str, data: bytes) -> None:
    with within(4), pytest.raises(DataError, match=f"^{name}: "):
        decode_rgb(data, name)


def test_animations_and_turned_pictures_are_their_first_frame_as_it_lies() -> None:
    frames = [Image.fromarray(square(colour, 1)) for colour in ("red", "blue")]
    moving, turned = io.BytesIO(), io.BytesIO()
    frames[0].save(moving, format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
    exif = Image.Exif()
    exif[274] = 6
    frames[0].crop((0, 0, 20, 32)).save(turned, format="JPEG", exif=exif)
    assert decode_rgb(moving.getvalue(), "x").tobytes() == frames[0].tobytes()
    assert decode_rgb(turned.getvalue(), "x").size == (20, 32)


def test_folders_with_traps(tmp_path: Path) -> None:
    """Links in a circle, links to nowhere, a pipe and a folder called like pictures."""
    red = tmp_path / "train" / "red"
    red.mkdir(parents=True)
    (red / "a.png").write_bytes(png(square("red", 1)))
    (red / "circle").symlink_to(tmp_path / "train")
    (red / "nowhere.png").symlink_to(tmp_path / "none")
    (red / "folder.png").mkdir()
    os.mkfifo(red / "pipe.png")
    with within(4):
        split = ImageFolderData(path=str(tmp_path)).open_split("train")
        assert [split.image(n).size for n in range(len(split))] == [(32, 32)]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", os.fsdecode(b"\xff")])
def test_class_folders_that_no_prompt_may_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "a.png").write_bytes(png(square("red", 1)))
    with pytest.raises(GiftError, match="printable names") as caught:
        ImageFolderData(path=str(tmp_path)).open_split("train")
    assert str(caught.value).isprintable()
