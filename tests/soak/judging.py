"""What a kill may cost: judged from what the killed run and the resumed one told and left."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tasks.manifests import PART_OF
from tests.soak.forks import Told


@dataclass(frozen=True)
class Left:
    """What is in a store: manifests by digest, damage, strays, the head's models, all paths.

    `models` are in the order in which they became the head. `paths` are those that `list` shows,
    without entries of histories, whose names hold the time.
    """

    manifests: dict[str, str]
    damages: list[str]
    unreferenced: list[str]
    models: list[str]
    paths: list[str]


@dataclass(frozen=True)
class Work:
    """The work that one run told: outputs begun and finished, training steps done."""

    told: Told

    @cached_property
    def begun(self) -> Counter[str]:
        """How often the making of each output was begun."""
        return Counter(words[1] for words in self._lines("begin"))

    @cached_property
    def finished(self) -> set[str]:
        """The outputs that were made or found."""
        return {words[1] for kind in ("made", "found") for words in self._lines(kind)}

    @cached_property
    def steps(self) -> Counter[tuple[str, str]]:
        """How often each training step was done."""
        return Counter((words[1], words[2]) for words in self._lines("step"))

    @property
    def last_stage(self) -> str:
        """The stage that was under way, or had just ended, when the run ended."""
        return stages_of_lines(self.told)[-1] if self.told.lines else "check"

    def _lines(self, kind: str) -> Iterator[list[str]]:
        return (words for line in self.told.lines if (words := line.split())[0] == kind)


@dataclass(frozen=True)
class Repeated:
    """What was done twice: outputs begun again, and training steps done again, by stage."""

    outputs: dict[str, int]
    steps: int

    @property
    def units(self) -> dict[str, int]:
        """Units by stage: a training step, a shard, a data set's score, else an output."""
        units = {stage: number for stage, number in self.outputs.items() if stage != "finetune"}
        return units | ({"finetune": self.steps} if self.steps else {})


def stages_of_lines(told: Told) -> list[str]:
    """The stage that each line was told in; "check" before the first."""
    stage, stages = "check", []
    for line in told.lines:
        stage = line.split()[1] if line.startswith("stage ") else stage
        stages.append(stage)
    return stages


def repeated(killed: Work, resumed: Work) -> Repeated:
    """What the two runs did more than once between them."""
    outputs = (killed.begun + resumed.begun) - Counter({*killed.begun, *resumed.begun})
    steps = (killed.steps + resumed.steps) - Counter({*killed.steps, *resumed.steps})
    by_stage: Counter[str] = Counter()
    for output, number in outputs.items():
        stage = output.split("/")[0]
        by_stage[PART_OF.get(stage, stage)] += number
    return Repeated(dict(by_stage), steps.total())


def problems(
    unbroken: Work,
    unbroken_left: Left,
    killed: Work,
    resumed: Work,
    left: Left,
    checkpoint_every: int,
) -> Iterator[str]:
    """Say what is not as it must be after a kill and a resume; nothing when all is well."""
    if resumed.told.exit_code != 0:
        yield f"the resumed run ended with exit code {resumed.told.exit_code}"
        return
    yield from _problems_of_work(unbroken, killed, resumed, checkpoint_every)
    yield from _problems_of_store(unbroken_left, left)


def _problems_of_work(
    unbroken: Work, killed: Work, resumed: Work, checkpoint_every: int
) -> Iterator[str]:
    if again := killed.finished & resumed.begun.keys():
        yield f"finished and made again: {', '.join(sorted(again))}"
    if {*killed.begun, *resumed.begun} != {*unbroken.begun}:
        yield "the outputs made are not the unbroken run's"
    if {*killed.steps, *resumed.steps} != {*unbroken.steps}:
        yield "the training steps done are not the unbroken run's"
    twice = repeated(killed, resumed)
    if sum(twice.outputs.values()) > (2 if twice.outputs.keys() == {"synthesize"} else 1):
        # One shard may be stored while the next is made; of all else there is one at a time.
        yield f"more than one output was begun again: {twice.outputs}"
    if twice.steps > checkpoint_every:
        yield f"{twice.steps} training steps were repeated, more than {checkpoint_every}"


def _problems_of_store(unbroken: Left, left: Left) -> Iterator[str]:
    for path in sorted({*unbroken.manifests, *left.manifests}):
        if unbroken.manifests.get(path) != left.manifests.get(path):
            yield f"{path} is not the unbroken run's"
    yield from (f"damaged: {damage}" for damage in left.damages)
    yield from (f"unreferenced: {stray}" for stray in left.unreferenced)
    if left.models != unbroken.models:
        yield f"the head was {left.models}, in the unbroken run {unbroken.models}"
    if more := sorted({*left.paths} - {*unbroken.paths}):
        yield f"objects that the unbroken run does not leave: {', '.join(more)}"
    if fewer := sorted({*unbroken.paths} - {*left.paths}):
        yield f"objects that only the unbroken run leaves: {', '.join(fewer)}"
