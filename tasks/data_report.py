"""What of a sequence's data lies on this machine, set by set, whatever is wrong with others."""

from dataclasses import dataclass

import numpy as np

from gift_core.errors import DataError
from tasks.check import check_data_set, named_data_sets
from tasks.sequence import DataSetSettings, SequenceSettings


@dataclass(frozen=True)
class SplitFound:
    """A split: images that are used and images that lie there, and how many there must be.

    `expected_images` and `expected_classes` are None where nobody has published a number.
    """

    name: str
    num_used: int
    num_images: int
    num_classes: int
    expected_images: int | None
    expected_classes: int | None
    digest: str

    @property
    def complaint(self) -> str | None:
        """What differs from the published data set; None when nothing does."""
        words = [
            f"{found:,} {what} where the published data set has {expected:,}"
            for what, found, expected in (
                ("images", self.num_images, self.expected_images),
                ("classes", self.num_classes, self.expected_classes),
            )
            if expected is not None and found != expected
        ]
        return f"the {self.name} split has {' and '.join(words)}" if words else None


@dataclass(frozen=True)
class Finding:
    """A data set of a sequence: what was found, or one sentence for each thing that is wrong."""

    settings: DataSetSettings
    asked: tuple[str, ...]
    """The splits that the sequence needs."""
    splits: tuple[SplitFound, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The data set's name in the sequence."""
        return self.settings.name


def look_at_data(sequence: SequenceSettings) -> list[Finding]:
    """Look at every data set of a sequence, tasks first; nothing that is wrong stops it."""
    return [_looked_at(where, *named) for where, *named in named_data_sets(sequence)]


def _looked_at(where: str, settings: DataSetSettings, splits: tuple[str, ...]) -> Finding:
    try:
        planned = check_data_set(where, settings, splits)
        found = tuple(
            _split(settings, name, planned.num_images[name], planned.digests[name])
            for name in splits
        )
    except DataError as error:
        return Finding(settings, splits, problems=(str(error),))
    complaints = tuple(f"{where}: {each.complaint}" for each in found if each.complaint)
    return Finding(settings, splits, found, complaints)


def _split(settings: DataSetSettings, name: str, num_used: int, digest: str) -> SplitFound:
    data = settings.data
    source = "train" if data.held_out and name == "validation" else name
    whole = data.read_split(source)
    expected = data.expected(source)
    return SplitFound(
        name=name,
        num_used=num_used,
        num_images=len(whole),
        num_classes=len(np.unique(whole.labels_N)),
        expected_images=expected.num_images if expected else None,
        expected_classes=expected.num_classes if expected else None,
        digest=digest,
    )
