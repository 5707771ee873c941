"""Words of published data sets: the profiles' names and templates, and what wins over them."""

import json
import sys
from pathlib import Path

import pytest
from open_clip import IMAGENET_CLASSNAMES

from gift_core.errors import DataError
from tasks.check import PlannedDataSet, check_data_set
from tasks.data import profiles
from tasks.data.benchmarks import BENCHMARKS
from tasks.data.profiles import words_of
from tasks.sequence import DataSetSettings
from tests.tasks.data.benchmark_trees import TREES

MTIL = [name for name in BENCHMARKS if "imagenet" not in name]


def checked(root: Path, dataset: str, **changes: object) -> PlannedDataSet:
    data = {"kind": "benchmark", "path": str(root), "dataset": dataset}
    data |= changes.pop("data", {})
    settings = {"name": "any", "data": data, "profile": "mtil"} | changes
    return check_data_set("any", DataSetSettings.model_validate(settings), ("test",))


@pytest.mark.parametrize("dataset", MTIL)
def test_mtil_has_words_for_each_of_its_data_sets(dataset: str) -> None:
    words = words_of("mtil", dataset)
    assert all(template.count("{}") == 1 for template in words.templates)
    if words.class_names is not None:
        assert len(set(words.class_names)) == BENCHMARKS[dataset].num_classes


def test_names_of_the_data_set_are_written_with_spaces(tmp_path: Path) -> None:
    TREES["cifar100"](tmp_path)
    found = checked(tmp_path, "cifar100")
    assert found.class_names == ("apple", "aquarium fish")
    assert found.templates[0] == "a photo of a {}."
    assert len(found.templates) == 18
    sliced = checked(tmp_path, "cifar100", data={"classes": [1]})
    assert sliced.class_names == ("aquarium fish",)


def test_a_list_of_names_is_sliced_with_the_classes(tmp_path: Path) -> None:
    TREES["eurosat"](tmp_path)
    data = {"classes": [1, 0]}
    assert checked(tmp_path, "eurosat", data=data).class_names == ("forest", "annual crop land")
    with pytest.raises(DataError, match="any: 10 class names for the 2 classes of the test split"):
        checked(tmp_path, "eurosat")


def test_what_is_given_wins(tmp_path: Path) -> None:
    TREES["eurosat"](tmp_path)
    found = checked(tmp_path, "eurosat", class_names=["wood", "water"], templates=["{} from above"])
    assert found.class_names == ("wood", "water")
    assert found.templates == ("{} from above",)


def test_imagenet_has_the_words_of_open_clip_though_two_are_there_twice(tmp_path: Path) -> None:
    TREES["imagenet-sketch"](tmp_path)
    for profile in ("mtil", "clip-benchmark"):
        found = checked(tmp_path, "imagenet-sketch", profile=profile)
        assert found.class_names == tuple(IMAGENET_CLASSNAMES)
        assert (len(found.templates), found.templates[0]) == (80, "a bad photo of a {}.")


def test_a_profile_that_knows_no_such_data_set_says_which_it_knows() -> None:
    with pytest.raises(DataError, match="profile mtil knows no data set 'shoes', only imagenet, a"):
        words_of("mtil", "shoes")


def test_clip_benchmark_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "clip_benchmark", raising=False)
    with pytest.raises(DataError, match="clip_benchmark, which is not installed; pip install"):
        words_of("clip-benchmark", "mnist")


def test_clip_benchmark_is_read_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the form of its two JSON files; the real ones say the same of these two."""
    folder = tmp_path / "clip_benchmark"
    (folder / "datasets").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    templates = {"caltech101": ["a photo of a {c}."], "sun397": ["a photo of the {c}."]}
    names = {"caltech101": ["background", "off-center face", "centered face"]}
    for file, content in (("en_zeroshot_classification_templates", templates),
                          ("en_classnames", names)):  # fmt: skip
        (folder / "datasets" / f"{file}.json").write_text(json.dumps(content))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "clip_benchmark", raising=False)
    profiles._json.cache_clear()
    words = words_of("clip-benchmark", "caltech101")
    assert words.class_names == ("off-center face", "centered face")
    assert words.templates == ("a photo of a {}.",)
    scenes = words_of("clip-benchmark", "sun397")
    assert scenes.class_names is None
    assert scenes.written("apartment_building/outdoor") == "apartment building outdoor"
    profiles._json.cache_clear()
    sys.modules.pop("clip_benchmark", None)
