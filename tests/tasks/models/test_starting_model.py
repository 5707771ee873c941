"""Which model a sequence starts from: named by its content, or by what open_clip knows."""

from pathlib import Path

from tasks.models.encoders import export_pretrained
from tasks.models.starting_model import ModelSettings, check_model
from tests.worlds import CLIP

LOCAL = ModelSettings(architecture=f"local-dir:{CLIP}")


def test_local_dir_is_named_by_its_content(tmp_path: Path) -> None:
    export_pretrained(LOCAL, tmp_path)
    copy = ModelSettings(architecture=f"local-dir:{tmp_path}")
    assert check_model(LOCAL) == check_model(LOCAL)
    assert check_model(copy) != check_model(LOCAL)  # fp32 weights in place of fp16


def test_known_tags_need_no_download_to_be_checked() -> None:
    settings = ModelSettings(architecture="ViT-B-16", pretrained="openai")
    assert check_model(settings) == "ViT-B-16:openai"
