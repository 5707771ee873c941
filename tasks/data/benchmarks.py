"""The field's benchmarks, a row each: how one lies on disk, its splits, and what there must be.

Splits are the published ones. Caltech101, EuroSAT and SUN397 have none; as the released code of
GIFT does (`split_dataset`, from ZSCL), 80 percent of their pictures are drawn for training with
torch's generator and seed 42, the rest are the test split. `order_sha256` is the digest of the
whole drawn order. The code numbers SUN397's pictures as the file system lists them; here they are
sorted, so that the draw is the same everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.data.listings import (
    Reader,
    by_torchvision,
    caltech101,
    flowers102,
    imagenet,
    imagenet_v2,
    oxford_pet,
    tiny_imagenet,
)
from tasks.data.raw_arrays import RawReader, cifar100, mnist


@dataclass(frozen=True)
class Benchmark:
    """A published data set.

    `parts` says how it calls our splits; it has those and no other. `num_images` counts each
    split; a data set that is drawn counts them after the draw.
    """

    title: str
    read: Reader | RawReader
    place: str
    """The folder below the settings' path that `archive` unpacks to."""
    archive: str
    num_classes: int
    num_images: Mapping[str, int]
    parts: Mapping[str, str]
    order_sha256: str | None = None


_OWN = {"train": "train", "test": "test"}
_WITH_VAL = _OWN | {"validation": "val"}
_TEST = {"test": "test"}


def _counts(train: int, test: int, validation: int | None = None) -> dict[str, int]:
    own = {"train": train, "test": test}
    return own if validation is None else own | {"validation": validation}


BENCHMARKS: Mapping[str, Benchmark] = {
    "aircraft": Benchmark(
        "FGVC Aircraft (variants)", by_torchvision("FGVCAircraft"), "fgvc-aircraft-2013b",
        "fgvc-aircraft-2013b.tar.gz", 100, _counts(3334, 3333, 3333), _WITH_VAL,
    ),
    "caltech101": Benchmark(
        "Caltech101", caltech101, "caltech101/101_ObjectCategories",
        "101_ObjectCategories.tar.gz", 101, _counts(6941, 1736), _OWN,
        "84a4ba242e1e8b650f21cf61d18f3b5744f4c7ca4391d927e094cfa318e69e9b",
    ),
    "cifar100": Benchmark(
        "CIFAR-100 (binary version)", cifar100, "cifar-100-binary",
        "cifar-100-binary.tar.gz", 100, _counts(50_000, 10_000), _OWN,
    ),
    "dtd": Benchmark(
        "Describable Textures (partition 1)", by_torchvision("DTD"), "dtd/dtd",
        "dtd-r1.0.1.tar.gz", 47, _counts(1880, 1880, 1880), _WITH_VAL,
    ),
    "eurosat": Benchmark(
        "EuroSAT (RGB)", by_torchvision("EuroSAT", takes_split=False), "eurosat/2750",
        "EuroSAT.zip", 10, _counts(21_600, 5400), _OWN,
        "c7baabb45c925a8afbe0f9c7cdaffdec866e9da25be1aba45a663b9b287ea829",
    ),
    "flowers102": Benchmark(
        "Oxford Flowers 102", flowers102, "flowers-102",
        "102flowers.tgz, beside setid.mat and imagelabels.mat", 102, _counts(1020, 6149, 1020),
        _WITH_VAL,
    ),
    "food101": Benchmark(
        "Food-101", by_torchvision("Food101"), "food-101",
        "food-101.tar.gz", 101, _counts(75_750, 25_250), _OWN,
    ),
    "mnist": Benchmark(
        "MNIST", mnist, "MNIST/raw",
        "train-images-idx3-ubyte.gz and its three sisters", 10, _counts(60_000, 10_000),
        {"train": "train", "test": "t10k"},
    ),
    "oxford-pet": Benchmark(
        "Oxford-IIIT Pet", oxford_pet, "oxford-iiit-pet",
        "images.tar.gz and annotations.tar.gz", 37, _counts(3680, 3669),
        {"train": "trainval", "test": "test"},
    ),
    "stanford-cars": Benchmark(
        "Stanford Cars", by_torchvision("StanfordCars"), "stanford_cars",
        "cars_train.tgz, cars_test.tgz, car_devkit.tgz, beside cars_test_annos_withlabels.mat",
        196, _counts(8144, 8041), _OWN,
    ),
    "sun397": Benchmark(
        "SUN397", by_torchvision("SUN397", takes_split=False), "SUN397",
        "SUN397.tar.gz", 397, _counts(87_003, 21_751), _OWN,
        "61f7bc09d14362f9ac49b8d7dc2a3cf847f81a3a6ebd10edcc4834edcb4d160c",
    ),
    "tiny-imagenet": Benchmark(
        "TinyImageNet", tiny_imagenet, "tiny-imagenet-200",
        "tiny-imagenet-200.zip", 200, _counts(100_000, 10_000), {"train": "train", "test": "val"},
    ),
    "imagenet": Benchmark(
        "ImageNet-1k", imagenet("imagenet", part_folders=True), "imagenet",
        "train and val, a folder a WordNet number", 1000, _counts(1_281_167, 50_000),
        {"train": "train", "test": "val"},
    ),
    "imagenet-v2": Benchmark(
        "ImageNet-V2 (matched frequency)", imagenet_v2, "imagenetv2-matched-frequency-format-val",
        "imagenetv2-matched-frequency.tar.gz", 1000, {"test": 10_000}, _TEST,
    ),
    "imagenet-a": Benchmark(
        "ImageNet-A", imagenet("imagenet-a", classes="imagenet_a"), "imagenet-a",
        "imagenet-a.tar", 200, {"test": 7500}, _TEST,
    ),
    "imagenet-r": Benchmark(
        "ImageNet-R", imagenet("imagenet-r", classes="imagenet_r"), "imagenet-r",
        "imagenet-r.tar", 200, {"test": 30_000}, _TEST,
    ),
    "imagenet-sketch": Benchmark(
        "ImageNet-Sketch", imagenet("sketch"), "sketch",
        "ImageNet-Sketch.zip", 1000, {"test": 50_889}, _TEST,
    ),
}  # fmt: skip
