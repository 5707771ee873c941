"""open_clip's two picture pipelines taken apart: bytes are made here, floats on the device.

Preprocessing (deterministic) stays open_clip's own to the byte, and has a fingerprint, so that
its results can be kept. Augmentation (random) goes through torchvision's transforms v2.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import FunctionType
from typing import Any, NamedTuple

from open_clip.transform import color_jitter, gray_scale
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from gift_core.errors import SettingsError
from tasks.manifests import canonical_json

Step = Callable[[Any], Any]
"""One step of a pipeline, from picture to picture."""


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to a PIL picture in RGB, up to the bytes; `normalisation` is the rest.

    `crop` (deterministic) and `augment` (random) give a uint8 tensor (3, H, W). `fingerprint` is
    the SHA-256 in hex of what `crop` does (its steps and their parameters, not the weights and
    not the normalisation): equal for equal preprocessing, in every process.
    """

    crop: Callable[[Image.Image], Tensor]
    augment: Callable[[Image.Image], Tensor]
    normalisation: Normalisation
    fingerprint: str


def preprocessing_of(augmentation: v1.Compose, preprocessing: v1.Compose) -> Preprocessing:
    """Take the pipelines of open_clip's `create_model_and_transforms` apart.

    Raises SettingsError when one does not end in ToTensor and Normalize, or when the preprocessing
    has a step that no fingerprint can name.
    """
    random_steps, _ = _without_normalisation(augmentation)
    steps, normalisation = _without_normalisation(preprocessing)
    return Preprocessing(
        crop=v1.Compose([*steps, v1.PILToTensor()]),
        augment=v2.Compose([*map(_in_v2, random_steps), v2.PILToTensor()]),
        normalisation=normalisation,
        fingerprint=hashlib.sha256(canonical_json(_described(steps))).hexdigest(),
    )


def _without_normalisation(pipeline: v1.Compose) -> tuple[Sequence[Step], Normalisation]:
    """Cut "to float tensor, normalise" off: bytes are kept and moved, a quarter of the floats."""
    steps, ending = pipeline.transforms[:-2], pipeline.transforms[-2:]
    match ending:
        case [v1.ToTensor(), v1.Normalize(mean=mean, std=std)]:
            return steps, Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
    raise SettingsError(
        f"model: its preprocessing ends in {ending}, not in ToTensor and Normalize; "
        "choose a model whose pictures open_clip prepares itself"
    )


_V2: dict[type, Callable[[Any], Step]] = {
    v1.RandomResizedCrop: lambda step: v2.RandomResizedCrop(
        step.size, scale=step.scale, ratio=step.ratio, interpolation=step.interpolation
    ),
    v1.RandomHorizontalFlip: lambda step: v2.RandomHorizontalFlip(step.p),
    v1.RandomVerticalFlip: lambda step: v2.RandomVerticalFlip(step.p),
    v1.RandomGrayscale: lambda step: v2.RandomGrayscale(step.p),
    v1.ColorJitter: lambda step: v2.ColorJitter(
        step.brightness, step.contrast, step.saturation, step.hue
    ),
    # open_clip's own two ask Python's generator whether to act, their counterparts torch's: the
    # same distribution, but other draws.
    color_jitter: lambda step: v2.RandomApply([_in_v2(step.transf)], step.p),
    gray_scale: lambda step: v2.RandomGrayscale(step.p),
}
"""Steps with a counterpart in v2. torchvision's own draw the same numbers in the same order."""


def _in_v2(step: Step) -> Step:
    """Give a step's counterpart; a step without one (timm's, a subclass) works in v2 as it is."""
    counterpart = _V2.get(type(step))
    return counterpart(step) if counterpart is not None else step


def _described(value: object) -> object:
    """Say what a step is in JSON: its class and public attributes, nothing of this process.

    Not its `repr`, which leaves out parameters (open_clip's fill colour) or holds an address.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return _described(value.value)
        case list() | tuple():
            return [_described(part) for part in value]
        case FunctionType() if "<" not in value.__qualname__:  # neither <lambda> nor <locals>
            return f"{value.__module__}.{value.__qualname__}"
        case object(__dict__=attributes) if not isinstance(value, FunctionType):
            kind = type(value)
            public = {
                name: _described(part)
                for name, part in attributes.items()
                if not name.startswith("_") and name != "training"
            }
            return {"step": f"{kind.__module__}.{kind.__qualname__}", **public}
    raise SettingsError(
        f"model: its preprocessing holds {value!r}, which no fingerprint can name; "
        "choose a model whose pictures open_clip prepares itself"
    )
