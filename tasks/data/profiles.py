"""Words for published data sets, as others scored them: class names and prompt templates by name.

`mtil` is what the ZSCL family of papers uses and its published tables need: all templates are
averaged for evaluation, the first one is the training and generation prompt. `clip-benchmark` is
LAION's, read from the package clip_benchmark where it is installed. ImageNet's words are those of
open_clip in both. A profile gives names only where the data set's own (torchvision's) are not used.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources, util
from typing import Any, Literal

from gift_core.errors import DataError

Profile = Literal["mtil", "clip-benchmark"]

_IN_CLIP_BENCHMARK = {
    "aircraft": "fgvc_aircraft",
    "caltech101": "caltech101",
    "cifar100": "cifar100",
    "dtd": "dtd",
    "eurosat": "eurosat",
    "flowers102": "flowers",
    "food101": "food101",
    "mnist": "mnist",
    "oxford-pet": "pets",
    "stanford-cars": "cars",
    "sun397": "sun397",
}
_OWN_LIST = frozenset({"caltech101", "eurosat", "flowers102", "mnist"})
"""Where clip_benchmark replaces torchvision's names by a list."""
_CUTS = {"food101": "_", "sun397": "_/"}
"""Characters of torchvision's names that clip_benchmark makes spaces of."""


@dataclass(frozen=True)
class Words:
    """Templates with one {}; class names in label order, or how the data set's own are written."""

    templates: tuple[str, ...]
    class_names: tuple[str, ...] | None
    written: Callable[[str], str]


def words_of(profile: Profile, dataset: str) -> Words:
    """The profile's words for a published data set; DataError when it has none."""
    if dataset == "imagenet" or dataset.startswith("imagenet-"):
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return Words(tuple(each("{}") for each in OPENAI_IMAGENET_TEMPLATES), None, str)
    return _mtil(dataset) if profile == "mtil" else _clip_benchmark(dataset)


def _mtil(dataset: str) -> Words:
    known = _json("tasks.data", "class_names/mtil.json")
    if dataset not in known:
        raise DataError(_unknown("mtil", dataset, known))
    row = known[dataset]
    names = tuple(row["class_names"]) if "class_names" in row else None
    return Words(tuple(row["templates"]), names, _with_spaces("_"))


def _clip_benchmark(dataset: str) -> Words:
    if dataset not in _IN_CLIP_BENCHMARK:
        raise DataError(_unknown("clip-benchmark", dataset, _IN_CLIP_BENCHMARK))
    if util.find_spec("clip_benchmark") is None:
        raise DataError(
            "profile clip-benchmark takes its words from the package clip_benchmark, which is not "
            "installed; pip install clip_benchmark, or give class_names and templates"
        )
    name = _IN_CLIP_BENCHMARK[dataset]
    templates = _json("clip_benchmark", "datasets/en_zeroshot_classification_templates.json")[name]
    names = None
    if dataset in _OWN_LIST:
        listed = _json("clip_benchmark", "datasets/en_classnames.json")[name]
        names = tuple(each for each in listed if each != "background")  # no class of Caltech101
    return Words(
        tuple(each.replace("{c}", "{}") for each in templates),
        names,
        _with_spaces(_CUTS.get(dataset, "")),
    )


@cache
def _json(package: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((resources.files(package) / name).read_text("utf-8"))
    return content


def _with_spaces(cuts: str) -> Callable[[str], str]:
    table = str.maketrans(dict.fromkeys(cuts, " "))
    return lambda name: name.translate(table)


def _unknown(profile: str, dataset: str, known: dict[str, Any] | dict[str, str]) -> str:
    return (
        f"profile {profile} knows no data set {dataset!r}, only imagenet, {', '.join(known)}; "
        "leave profile out and give class_names and templates"
    )
