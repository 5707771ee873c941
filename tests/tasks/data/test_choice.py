"""What is chosen of a data set: classes, shots, a part held out; the same for every kind."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from gift_core.errors import DataError
from tasks.data.choice import few_shot, held_out, of_classes
from tasks.data.sources import ParquetData
from tests.worlds import png, square, write_split

COLOURS = ("red", "green", "blue")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training pictures, labels 0 1 2 0 1 2, and three of the test split."""
    for split, number in (("train", 6), ("test", 3)):
        labels = [index % 3 for index in range(number)]
        pictures = [png(square(COLOURS[label], index)) for index, label in enumerate(labels)]
        write_split(tmp_path / f"{split}.parquet", pictures, labels, COLOURS)
    return tmp_path


def test_classes_are_taken_in_the_order_they_are_named(folder: Path) -> None:
    split = ParquetData(path=str(folder), classes=[2, 0]).open_split("train")
    assert split.class_names == ("blue", "red")
    assert split.labels_N.tolist() == [1, 0, 1, 0]
    for place, index in enumerate((0, 2, 3, 5)):
        shown = square(COLOURS[index % 3], index)
        np.testing.assert_array_equal(np.asarray(split.image(place)), shown)


def test_a_range_is_its_classes_one_by_one(folder: Path) -> None:
    by_range = ParquetData(path=str(folder), classes={"start": 1, "stop": 3}).open_split("test")
    by_list = ParquetData(path=str(folder), classes=[1, 2]).open_split("test")
    assert by_range.digest == by_list.digest
    assert by_range.class_names == ("green", "blue")


def test_shots_are_seeded_and_leave_the_test_split_alone(folder: Path) -> None:
    source = ParquetData(path=str(folder), shots=1)
    split = source.open_split("train")
    assert sorted(split.labels_N.tolist()) == [0, 1, 2]
    assert source.open_split("train").digest == split.digest
    assert len(source.open_split("test")) == 3
    drawn = {tuple(few_shot(np.repeat(np.arange(3), 50), 2, seed).tolist()) for seed in range(5)}
    assert len(drawn) == 5


def test_a_class_is_drawn_the_same_beside_any_others() -> None:
    labels_N = np.repeat(np.arange(3), 50)
    among_three = few_shot(labels_N, 5, seed=42)
    alone = few_shot(labels_N[:50], 5, seed=42)
    assert among_three[:5].tolist() == alone.tolist()


def test_a_slice_of_classes_has_the_shots_of_the_whole(folder: Path) -> None:
    whole = ParquetData(path=str(folder), shots=1).open_split("train")
    part = ParquetData(path=str(folder), shots=1, classes=[2, 1]).open_split("train")
    read = {whole.images.read(index) for index in range(3)}
    assert {part.images.read(index) for index in range(2)} < read


def test_what_is_held_out_is_not_learnt(folder: Path) -> None:
    source = ParquetData(path=str(folder), held_out=0.34)
    train, validation = source.open_split("train"), source.open_split("validation")
    assert (len(train), len(validation)) == (4, 2)
    read = [split.images.read(index)[1] for split in (train, validation)
            for index in range(len(split))]  # fmt: skip
    assert len(set(read)) == 6
    kept, held = held_out(100, 0.1, 42)
    assert sorted([*kept, *held]) == list(range(100))


def test_nothing_is_chosen_by_default(folder: Path) -> None:
    source = ParquetData(path=str(folder))
    assert source.open_split("train").digest == source.read_split("train").digest
    assert set(source.model_dump()) == {"kind", "path", "splits"}


def test_digests_tell_choices_apart(folder: Path) -> None:
    choices = [
        {}, {"classes": [0, 1]}, {"classes": [1, 0]}, {"shots": 1}, {"shots": 2},
        {"shots": 1, "draw_seed": 1}, {"held_out": 0.34}, {"held_out": 0.34, "shots": 1},
    ]  # fmt: skip
    digests = {
        ParquetData(path=str(folder), **choice).open_split("train").digest for choice in choices
    }
    assert len(digests) == len(choices)


def test_labels_that_no_class_has_are_left_out() -> None:
    chosen, labels = of_classes(np.array([3, 1, 2, 3, -1, 2_000_000_000]), (9, 3), None)
    assert (chosen.tolist(), labels.tolist()) == ([0, 3], [1, 1])


def test_what_cannot_be_chosen_is_one_sentence(folder: Path) -> None:
    with pytest.raises(DataError, match="the train split: classes names class 7, but there are 0 "):
        ParquetData(path=str(folder), classes=[1, 7]).open_split("train")
    with pytest.raises(DataError, match="class 0 has 2 images, fewer than shots 3"):
        ParquetData(path=str(folder), shots=3).open_split("train")
    for wrong in ([], [1, 1], {"start": 3, "stop": 3}):
        with pytest.raises(ValidationError, match="name"):
            ParquetData(path="x", classes=wrong)
