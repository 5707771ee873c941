"""Every data set of a sequence is looked at, whatever is wrong with the ones before."""

from pathlib import Path

from tasks.data_report import look_at_data, open_pictures
from tests.tasks.data.benchmark_trees import TREES
from tests.worlds import png, square, tiny_sequence


def test_all_are_told_of(tmp_path: Path, tiny_data: Path) -> None:
    TREES["dtd"](tmp_path)
    benchmark = {"kind": "benchmark", "path": str(tmp_path)}
    tasks = [
        {"name": "missing", "data": benchmark | {"dataset": "food101"}},
        {"name": "small", "data": benchmark | {"dataset": "dtd", "classes": [1]}},
        {"name": "good", "data": {"kind": "parquet", "path": str(tiny_data / "warm"), "shots": 2}},
    ]
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"), tasks=tasks)
    missing, small, good, panel = look_at_data(sequence)
    assert missing.splits == ()
    assert missing.problems == (
        f"tasks.0 (missing): no folder {tmp_path}/food-101; Food-101 belongs there "
        "(food-101.tar.gz, unpacked)",
    )
    train, test = small.splits
    assert (train.num_used, train.num_images, train.expected_images) == (2, 3, 1880)
    assert (train.num_classes, train.expected_classes) == (2, 47)
    assert small.problems[0] == (
        "tasks.1 (small): the train split has 3 images where the published data set has 1,880 "
        "and 2 classes where the published data set has 47"
    )
    assert len(small.problems) == 2
    assert train.digest != test.digest
    assert good.problems == panel.problems == ()
    assert [(each.num_used, each.num_images, each.expected_images) for each in good.splits] == [
        (4, 10, None),
        (6, 6, None),
    ]
    assert [each.name for each in panel.splits] == ["test"]


def pictures(folder: Path, **counts: int) -> None:
    """An image folder: train/red=3 and so on; a class of none is an empty folder."""
    for place, number in counts.items():
        split, name = place.split("_")
        (folder / split / name).mkdir(parents=True)
        for row in range(number):
            (folder / split / name / f"{row:04}.png").write_bytes(png(square("red", row)))


def test_a_class_without_images_is_noted(tmp_path: Path, tiny_data: Path) -> None:
    pictures(tmp_path / "odd", train_red=3, train_blue=0, test_red=2, test_blue=2)
    tasks = [{"name": "odd", "data": {"kind": "image-folder", "path": str(tmp_path / "odd")}}]
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"), tasks=tasks)
    odd, panel = look_at_data(sequence)
    assert odd.notes == ("tasks.0 (odd): the train split has no image of blue: not learnt",)
    assert odd.problems == panel.notes == ()


def test_every_picture_is_opened_and_bad_ones_are_named(tmp_path: Path, tiny_data: Path) -> None:
    pictures(tmp_path / "odd", train_red=1500, test_red=2)
    torn = tmp_path / "odd" / "train" / "red" / "1400.png"
    torn.write_bytes(torn.read_bytes()[:60])
    (tmp_path / "odd" / "test" / "red" / "0001.png").write_text("no picture")
    tasks = [
        {"name": "odd", "data": {"kind": "image-folder", "path": str(tmp_path / "odd")}},
        {"name": "missing", "data": {"kind": "image-folder", "path": str(tmp_path / "none")}},
    ]
    sequence = tiny_sequence(tiny_data, str(tmp_path / "store"), tasks=tasks)
    told = list(open_pictures(sequence))
    assert len(told) == 1500 + 2 + 6  # and the panel's
    train, test = filter(None, told)
    assert (told[1400], told[1501]) == (train, test)
    assert train.startswith(f"tasks.0 (odd): {torn}: ")
    assert test.startswith(f"tasks.0 (odd): {tmp_path}/odd/test/red/0001.png: ")
