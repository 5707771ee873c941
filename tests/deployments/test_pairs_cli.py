"""`gift pairs`: a contact sheet to look at, and a data set with a card to hand on."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tasks.manifests import PairsManifest
from tasks.store.objects import FolderStore
from tests.deployments.conftest import Gift
from tests.deployments.made_up_stores import reported


def test_show_writes_the_sheet_and_says_what_was_rejected(
    gift: Gift, folder: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(folder)
    monkeypatch.chdir(tmp_path)
    code, out, _ = gift("pairs", "show", "little/photos", "--store", folder.url)
    assert code == 0
    assert "little/photos: 10 pairs of generator@1234; 1 picture replaced" in out
    sheet = np.asarray(Image.open(tmp_path / "little-photos.png"))
    assert sheet.shape == (2 * 100 - 4, 8 * 100 - 4, 3)


def test_export_is_a_data_set_with_a_card(gift: Gift, folder: FolderStore, tmp_path: Path) -> None:
    run = reported(folder)
    place = tmp_path / "handed" / "photos"
    words = ("pairs", "export", "little/photos", str(place), "--store", folder.url)
    code, out, _ = gift(*words, "--licence", "openrail")
    assert (code, "10 pairs" in out, "unknown" in out) == (0, True, False)
    assert {path.name for path in place.iterdir()} == {
        "README.md", "contact-sheet.png", "manifest.json", "data",
    }  # fmt: skip
    manifest = PairsManifest.model_validate_json((place / "manifest.json").read_bytes())
    assert manifest == run.pairs[1]
    for ref in manifest.files:
        assert (place / "data" / ref.name).stat().st_size == ref.num_bytes
    rows = sum(pq.read_table(path).num_rows for path in (place / "data").iterdir())
    assert rows == 10
    card = (place / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "openrail"
    assert head["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    for told in (
        "generator@1234", "2 distinct, each 5 to 5 times", "1 picture replaced", manifest.digest,
        manifest.files[0].sha256, '"name": "photos"',
    ):  # fmt: skip
        assert told in card
    Image.open(io.BytesIO((place / "contact-sheet.png").read_bytes())).verify()
    assert gift(*words)[0] == 2  # the folder is not empty any more


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("little", "name the pairs as SEQUENCE/TASK"),
        ("little/none", "no replay pairs for 'none'; it has them for digits, photos"),
        ("other/photos", "no sequence 'other'"),
    ],
)
def test_names_that_mean_nothing(gift: Gift, folder: FolderStore, name: str, sentence: str) -> None:
    reported(folder)
    code, _, err = gift("pairs", "show", name, "--store", folder.url)
    assert (code, sentence in err) == (2, True)


def test_a_place_that_cannot_be_written_is_named(
    gift: Gift, folder: FolderStore, tmp_path: Path
) -> None:
    reported(folder)
    where = str(tmp_path / "none" / "sheet.png")
    code, _, err = gift("pairs", "show", "little/photos", "--store", folder.url, "--output", where)
    assert (code, "cannot be written" in err) == (2, True)
