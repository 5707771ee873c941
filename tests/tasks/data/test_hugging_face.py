"""Data sets as Hugging Face `datasets` itself writes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, disable_progress_bars

from gift_core.errors import DataError
from tasks.data.sources import HuggingFaceData
from tests.worlds import png, square

LABELS = [0, 1, 1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same three pictures by save_to_disk, and as Parquet shards of the hub's form."""
    folder = tmp_path_factory.mktemp("hf")
    disable_progress_bars()
    pictures = [{"bytes": png(square("red", index)), "path": None} for index in range(3)]
    features = Features({"img": Image(), "fine_label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"img": pictures, "fine_label": LABELS}, features=features)
    DatasetDict({"test": data}).save_to_disk(str(folder / "saved"))
    (folder / "hub" / "data").mkdir(parents=True)
    for shard in range(2):
        file = folder / "hub" / "data" / f"test-{shard:05d}-of-00002.parquet"
        data.shard(2, shard, contiguous=True).to_parquet(str(file))
    return folder


def source(folder: Path) -> HuggingFaceData:
    return HuggingFaceData(path=str(folder), image_column="img", label_column="fine_label")


@pytest.mark.parametrize("form", ["saved", "hub"])
def test_both_forms_are_read(saved: Path, form: str) -> None:
    split = source(saved / form).open_split("test")
    assert split.labels_N.tolist() == LABELS
    assert split.class_names == ("a", "b")
    for index in range(3):
        np.testing.assert_array_equal(np.asarray(split.image(index)), square("red", index))


def test_broken_ones_are_one_sentence(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train/\*\.arrow, .* save the train split there"):
        source(saved / "saved").open_split("train")
    with pytest.raises(DataError, match="no column image and no column label, but img, fine_label"):
        HuggingFaceData(path=str(saved / "hub")).open_split("test")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "data-00000-of-00001.arrow").write_bytes(b"print('a script')" * 9)
    with pytest.raises(DataError, match="not readable tables"):
        source(tmp_path).open_split("test")
    pq.write_table(pa.table({"img": ["x"], "fine_label": [0]}), tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="not a struct with binary bytes"):
        source(tmp_path).open_split("train")
