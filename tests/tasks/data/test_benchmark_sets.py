"""Every benchmark read from a small tree in its true layout, and refused from three broken ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils.data import random_split

from gift_core.errors import DataError
from tasks.data.benchmark_sets import BenchmarkData, order_digest, seeded_order
from tasks.data.benchmarks import BENCHMARKS
from tests.tasks.data.benchmark_trees import TREES, Written, jpeg, large, pixels

RAW = {"cifar100": large, "mnist": lambda number: np.stack([pixels(number)[..., 0]] * 3, axis=-1)}
NAMES = {
    "aircraft": ("707-320", "A300B4"),
    "caltech101": ("Faces", "ant"),
    "cifar100": ("apple", "aquarium_fish"),
    "eurosat": ("Forest", "River"),
    "flowers102": ("pink primrose", "hard-leaved pocket orchid"),
    "mnist": ("0 - zero", "1 - one"),
    "oxford-pet": ("Abyssinian", "American Bulldog"),
    "stanford-cars": ("AM General Hummer SUV 2000", "Acura RL Sedan 2012"),
    "sun397": ("abbey", "apartment_building/outdoor"),
    "tiny-imagenet": ("Egyptian Mau", "goldfish"),
    "imagenet": ("tench", "goldfish"),
    "imagenet-a": ("stingray", "goldfinch"),
}


def expected(dataset: str, written: Written) -> Written:
    """What was written by split; where splits are drawn, as the released code draws them."""
    if BENCHMARKS[dataset].order_sha256 is None:
        return {split.replace("val", "validation"): rows for split, rows in written.items()}
    number = len(written["all"])
    train, test = random_split(
        range(number), [8, number - 8], generator=torch.Generator().manual_seed(42)
    )
    return {
        split: [written["all"][index] for index in part.indices]
        for split, part in (("train", train), ("test", test))
    }


@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_a_small_tree_in_the_true_layout_is_read(dataset: str, tmp_path: Path) -> None:
    source = BenchmarkData(path=str(tmp_path), dataset=dataset)
    for split, rows in expected(dataset, TREES[dataset](tmp_path)).items():
        found = source.open_split(split)
        assert found.labels_N.tolist() == [label for label, _ in rows]
        assert found.class_names is not None
        assert found.class_names[:2] == NAMES.get(dataset, found.class_names[:2])
        for index, (_, number) in enumerate(rows[:5]):
            if dataset in RAW:
                np.testing.assert_array_equal(np.asarray(found.image(index)), RAW[dataset](number))
            else:
                assert found.images.read(index)[0] == jpeg(number)
    with pytest.raises(DataError, match=r"has no unheard split, it has .*test"):
        source.open_split("unheard")


GONE, EMPTY, GARBAGE = "gone", b"", b"\xff\xfe 1 2 \n 3/4/5"
BROKEN = [
    ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", EMPTY, r"not FGVC.*KeyError: '707-320'"),
    ("aircraft", "fgvc-aircraft-2013b/data/images/0000000.jpg", GONE, "no picture .*0000000.jpg"),
    ("caltech101", "caltech101/101_ObjectCategories", EMPTY, "name no pictures, or classes"),
    ("caltech101", "caltech101/101_ObjectCategories/ant", EMPTY, "ant: no pictures of this class"),
    ("cifar100", "cifar-100-binary/train.bin", GARBAGE, "train.bin: not whole pictures of 3,074"),
    ("cifar100", "cifar-100-binary/fine_label_names.txt", GONE, "no file .*fine_label_names.txt"),
    ("dtd", "dtd/dtd/labels/train1.txt", GARBAGE, "not Describable Textures .*as it is published"),
    ("dtd", "dtd/dtd/images/wavy", GONE, "no picture .*/wavy/wavy_0001.jpg"),
    ("eurosat", "eurosat/2750/River", EMPTY, "not EuroSAT .*no valid file for the classes River"),
    ("eurosat", "eurosat/2750/Forest/Forest_1.jpg", "dangling", "no picture .*Forest_1.jpg"),
    ("flowers102", "flowers-102/setid.mat", GARBAGE, "not Oxford Flowers 102 as it is published"),
    ("flowers102", "flowers-102/imagelabels.mat", GONE, "no file .*imagelabels.mat"),
    ("food101", "food-101/meta/train.json", GARBAGE, "not Food-101 as it is published .*Decode"),
    ("food101", "food-101/images/waffles", GONE, "no picture .*/waffles/1.jpg"),
    ("mnist", "MNIST/raw/train-images-idx3-ubyte", GARBAGE, "not an IDX file of bytes with 3"),
    ("mnist", "MNIST/raw/train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x09ab", "10 bytes, .*17"),
    ("oxford-pet", "oxford-iiit-pet/annotations/trainval.txt", b"a_1 7 1 1", "Pet as .*KeyError"),
    ("oxford-pet", "oxford-iiit-pet/images/Abyssinian_0.jpg", GONE, "no picture .*Abyssinian_0"),
    ("stanford-cars", "stanford_cars/devkit/cars_meta.mat", GARBAGE, "not Stanford Cars as it is"),
    ("stanford-cars", "stanford_cars/cars_train/00002.jpg", GONE, "no picture .*train/00002.jpg"),
    ("sun397", "SUN397/ClassName.txt", GONE, "no file .*ClassName.txt, of SUN397"),
    ("sun397", "SUN397/ClassName.txt", b"/a/abbey\n", "not SUN397 .*KeyError: 'apartment_build"),
    (
        "tiny-imagenet",
        "tiny-imagenet-200/wnids.txt",
        b"n02124075 n99",
        "'n99' is no class of ImageNet",
    ),
    ("tiny-imagenet", "tiny-imagenet-200/train/n01443537", GONE, "no pictures of this class"),
    ("imagenet", "imagenet/train", GONE, "no file .*/imagenet/train, of ImageNet-1k"),
    ("imagenet", "imagenet/train/n01443537", EMPTY, "n01443537: no pictures of this class"),
    ("imagenet-v2", "imagenetv2-matched-frequency-format-val/1", GONE, "/1: no pictures of this"),
    ("imagenet-v2", "imagenetv2-matched-frequency-format-val/0", EMPTY, "/0: no pictures of this"),
    ("imagenet-a", "imagenet-a/n01498041", GONE, "n01498041: no pictures of this class"),
    ("imagenet-a", "imagenet-a/n01531178", EMPTY, "n01531178: no pictures of this class"),
    ("imagenet-r", "imagenet-r/n01443537", GONE, "n01443537: no pictures of this class"),
    ("imagenet-r", "imagenet-r/n01484850", EMPTY, "n01484850: no pictures of this class"),
    ("imagenet-sketch", "sketch/n01440764", GONE, "n01440764: no pictures of this class"),
    ("imagenet-sketch", "sketch/n15075141", EMPTY, "n15075141: no pictures of this class"),
]


def broken(path: Path, how: str | bytes) -> None:
    """Take a file or folder away, leave nothing in it, or write something else."""
    if how == "dangling":
        path.unlink()
        path.symlink_to("nowhere.jpg")
    elif path.is_dir():
        shutil.rmtree(path)
        if how == EMPTY:
            path.mkdir()
    elif how == GONE:
        path.unlink()
    else:
        assert isinstance(how, bytes)
        path.write_bytes(how)


@pytest.mark.parametrize(("dataset", "place", "how", "sentence"), BROKEN)
def test_a_broken_tree_is_one_sentence(
    dataset: str, place: str, how: str | bytes, sentence: str, tmp_path: Path
) -> None:
    TREES[dataset](tmp_path)
    broken(tmp_path / place, how)
    split = "train" if "train" in BENCHMARKS[dataset].parts else "test"
    with pytest.raises(DataError, match=sentence) as caught:
        BenchmarkData(path=str(tmp_path), dataset=dataset).open_split(split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", BENCHMARKS)
def test_what_is_not_there_is_named_with_its_archive_and_place(
    dataset: str, tmp_path: Path
) -> None:
    row = BENCHMARKS[dataset]
    with pytest.raises(DataError) as caught:
        BenchmarkData(path=str(tmp_path), dataset=dataset).open_split("test")
    said = str(caught.value)
    assert said == (
        f"no folder {tmp_path / row.place}; {row.title} belongs there ({row.archive}, unpacked)"
    )


def test_the_released_order_is_the_one_recorded() -> None:
    for name, number in (("caltech101", 8677), ("eurosat", 27_000), ("sun397", 108_754)):
        row = BENCHMARKS[name]
        assert sum(row.num_images.values()) == number
        assert order_digest(seeded_order(number)) == row.order_sha256
        assert row.num_images["train"] == int(0.8 * number)


def test_a_name_that_no_benchmark_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="no such benchmark; there are aircraft, caltech101"):
        BenchmarkData(path="x", dataset="aircrafts")


def test_a_split_without_a_published_one_says_what_helps(tmp_path: Path) -> None:
    TREES["mnist"](tmp_path)
    source = BenchmarkData(path=str(tmp_path), dataset="mnist")
    with pytest.raises(DataError, match="has no validation split, it has train, test; set held_o"):
        source.open_split("validation")
    cut = source.model_copy(update={"held_out": 0.3})
    assert (len(cut.open_split("train")), len(cut.open_split("validation"))) == (2, 1)


def test_mtil_has_the_published_1201_classes() -> None:
    mtil = [row.num_classes for name, row in BENCHMARKS.items() if "imagenet" not in name]
    assert (len(mtil), sum(mtil)) == (11, 1201)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(DataError, match="is a pickle, which is never read; unpack cifar-100-bin"):
        BenchmarkData(path=str(tmp_path), dataset="cifar100").open_split("train")


def test_a_list_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    TREES["aircraft"](root)
    (tmp_path / "out.jpg").write_bytes(jpeg(0))
    listed = root / "fgvc-aircraft-2013b" / "data" / "images_variant_test.txt"
    listed.write_text("../../../../out 707-320\n")
    with pytest.raises(DataError, match="a list leads out of"):
        BenchmarkData(path=str(root), dataset="aircraft").open_split("test")


def test_digest_follows_labels_and_pictures_not_the_place(tmp_path: Path) -> None:
    digests = []
    for name, new in (("one", None), ("same", None), ("other", jpeg(77))):
        root = tmp_path / name
        TREES["dtd"](root)
        if new is not None:
            (root / "dtd" / "dtd" / "images" / "banded" / "banded_0000.jpg").write_bytes(new)
        digests.append(BenchmarkData(path=str(root), dataset="dtd").open_split("train").digest)
    assert digests[0] == digests[1] != digests[2]
    roundabout = str(tmp_path / "other" / ".." / "one")
    assert BenchmarkData(path=roundabout, dataset="dtd").open_split("train").digest == digests[0]
    lists = tmp_path / "one" / "dtd" / "dtd" / "labels" / "train1.txt"
    lists.write_text("\n".join(reversed(lists.read_text().split())))
    turned = BenchmarkData(path=str(tmp_path / "one"), dataset="dtd").open_split("train")
    assert turned.digest not in digests
