"""Every data set of a sequence is looked at, whatever is wrong with the ones before."""

from pathlib import Path

from tasks.data_report import look_at_data
from tests.tasks.data.benchmark_trees import TREES
from tests.worlds import tiny_sequence


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
