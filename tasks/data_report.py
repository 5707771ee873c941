"""What of a sequence's data lies on this machine, set by set, whatever is wrong with others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from gift_core.errors import DataError, one_line
from tasks.check import check_data_set, named_data_sets
from tasks.data.splits import Split
from tasks.data.workers import num_cpus
from tasks.sequence import DataSetSettings, SequenceSettings

AT_ONCE = 1024
"""Pictures that are handed to the decoding threads together."""


@dataclass(frozen=True)
class SplitFound:
    """A split: images that are used and images that lie there, and how many there must be.

    `expected_images` and `expected_classes` are None where nobody has published a number; `absent`
    are the classes of the data set without an image here.
    """

    name: str
    num_used: int
    num_images: int
    num_classes: int
    expected_images: int | None
    expected_classes: int | None
    digest: str
    absent: tuple[str, ...] = ()

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

    @property
    def note(self) -> str | None:
        """What may be meant and may be a slip: classes that are named and have no image."""
        if not self.absent:
            return None
        shown = ", ".join(one_line(name, 80) for name in self.absent[:5])
        more = f" and {len(self.absent) - 5} more" if len(self.absent) > 5 else ""
        lack = "not learnt" if self.name == "train" else "not measured"
        return f"the {self.name} split has no image of {shown}{more}: {lack}"


@dataclass(frozen=True)
class Finding:
    """A data set of a sequence: what was found, or one sentence for each thing that is wrong."""

    settings: DataSetSettings
    asked: tuple[str, ...]
    """The splits that the sequence needs."""
    splits: tuple[SplitFound, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What is no fault, and may not be what was meant."""

    @property
    def name(self) -> str:
        """The data set's name in the sequence."""
        return self.settings.name


def look_at_data(sequence: SequenceSettings) -> list[Finding]:
    """Look at every data set of a sequence, tasks first; nothing that is wrong stops it."""
    return [_looked_at(where, *named) for where, *named in named_data_sets(sequence)]


def open_pictures(sequence: SequenceSettings) -> Iterator[str | None]:
    """Decode every picture that the sequence uses; for each None, or one sentence on what is wrong.

    Data sets that cannot be opened at all are left out: `look_at_data` names those.
    """
    with ThreadPoolExecutor(num_cpus()) as decoders:  # decoding lets other threads work
        for where, settings, splits in named_data_sets(sequence):
            for name in splits:
                try:
                    split = settings.data.open_split(name)
                except DataError:
                    continue
                look = partial(_picture_problem, where, split)
                for start in range(0, len(split), AT_ONCE):
                    yield from decoders.map(look, range(start, min(start + AT_ONCE, len(split))))


def _picture_problem(where: str, split: Split, row: int) -> str | None:
    try:
        split.image(row)
    except DataError as error:
        return f"{where}: {error}"
    return None


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
    notes = tuple(f"{where}: {each.note}" for each in found if each.note)
    return Finding(settings, splits, found, complaints, notes)


def _split(settings: DataSetSettings, name: str, num_used: int, digest: str) -> SplitFound:
    data = settings.data
    source = "train" if data.held_out and name == "validation" else name
    whole = data.read_split(source)
    expected = data.expected(source)
    present = np.unique(whole.labels_N)
    names = () if whole.class_names is None else whole.class_names
    return SplitFound(
        name=name,
        num_used=num_used,
        num_images=len(whole),
        num_classes=len(present),
        expected_images=expected.num_images if expected else None,
        expected_classes=expected.num_classes if expected else None,
        digest=digest,
        absent=tuple(name for label, name in enumerate(names) if label not in present),
    )
