"""Pictures for a list of prompts: batch by batch, looked at, and made anew where they are no good.

One thread makes pictures, another looks at them and encodes them meanwhile, in the order of making,
at most one batch behind. Which tries share a batch follows from the plan and from what came out of
it, so a shard that is made again is the same.

A place is one prompt of the list, numbered from 0; a try is one picture made for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gift_core.cleaning import Cleaning, blemish
from gift_core.errors import DataError
from gift_core.prompts import MAX_PAIRS, Draw, try_seed
from gift_core.selection import Selection, choose
from gift_core.settings import Settings, added
from tasks.images import encode_png
from tasks.models.adaptation import AdaptationSettings
from tasks.models.generators import DiffusersSettings, Generator, GeneratorSettings, Pictures

if TYPE_CHECKING:
    from torch import Tensor

HOPELESS = 100
"""So many pictures without a good one, and the generator is given up: hours could follow."""

Image = NDArray[np.uint8]


class SynthesisSettings(Settings):
    """How the replay pairs of a task are made."""

    generator: GeneratorSettings = Field(
        default=DiffusersSettings(), description="The text-to-image model, or recorded pictures"
    )
    num_pairs: int = Field(
        default=1000, ge=1, le=MAX_PAIRS, description="Replay pairs a task (paper: 1000)"
    )
    pairs_per_shard: int = Field(
        default=500,
        ge=1,
        le=MAX_PAIRS,
        description="Replay pairs in one Parquet shard; each shard is kept alone",
    )
    draw: Draw = added(
        "uniform",
        description="How prompts are drawn from the pool. uniform: with replacement (paper); "
        "without-replacement: none twice; class-balanced: every prompt equally often",
    )
    prompts: Literal["known", "pretraining"] = added(
        "known",
        description="Which prompts are drawn from. known: those of the pretraining proxy and of "
        "the earlier tasks (paper); pretraining: the proxy's alone (its ablation)",
    )
    cleaning: Cleaning = added(
        Cleaning(), description="Which pictures are replaced by the next seed of their prompt"
    )
    selection: Selection = added(
        Selection(), description="Which pictures the teacher lets pass; by default any"
    )
    adaptation: AdaptationSettings | None = added(
        None,
        description="Adapt the generator to each task that is learnt, by a LoRA of its UNet, for "
        "that task's prompts later on (LoRA-Loop); empty: it stays as it is (paper)",
    )

    @model_validator(mode="after")
    def _what_is_adapted_is_drawn(self) -> "SynthesisSettings":
        if self.adaptation is not None and self.prompts == "pretraining":
            raise ValueError(
                "adaptation is for the prompts of earlier tasks, which prompts: pretraining never "
                "draws; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _tries_cover_candidates(self) -> "SynthesisSettings":
        candidates, tries = self.selection.candidates, self.cleaning.max_tries
        if candidates > tries:
            raise ValueError(
                f"selection.candidates {candidates} is more than cleaning.max_tries {tries}; "
                "raise the latter"
            )
        return self


class Judge(Protocol):
    """The teacher, asked about pictures."""

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> "tuple[Tensor, Tensor]":
        """Features (B, D), normalised, and the confidence (B,) in each picture's own prompt."""


@dataclass(frozen=True)
class Kept:
    """A good picture as PNG bytes, with the seed that made it."""

    image_bytes: bytes
    seed: int


@dataclass(frozen=True)
class Try:
    """One picture to make: for which place, and which of its seeds."""

    place: int
    number: int


def make_pictures(
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SynthesisSettings,
    generator: Generator,
    judge: Judge | None,
    advance: Callable[[int], None],
) -> tuple[list[Kept], Counter[str]]:
    """Make one good picture for each prompt and seed; also count the others by reason.

    `advance` is told of places that are filled. Raises DataError when a place stays empty after
    `cleaning.max_tries` seeds, or when nothing good comes at all.
    """
    work = _Work(prompts, seeds, settings, judge)
    size = settings.generator.batch_size
    with ThreadPoolExecutor(1, thread_name_prefix="gift-look") as looker:
        looked: Future[int] | None = None
        for tries in work.rounds():
            for first in range(0, len(tries), size):
                batch = tries[first : first + size]
                pictures = generator.generate(
                    [prompts[each.place] for each in batch], [work.seed(each) for each in batch]
                )
                if looked is not None:
                    advance(looked.result())
                looked = looker.submit(work.look_at, batch, pictures)
            if looked is not None:  # what comes next depends on it
                advance(looked.result())
                looked = None
    return work.finished(), work.rejected


class _Work:
    """What was made of a list of prompts so far."""

    def __init__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SynthesisSettings,
        judge: Judge | None,
    ) -> None:
        self._prompts, self._seeds = prompts, seeds
        self._cleaning, self._selection = settings.cleaning, settings.selection
        self._judge = judge
        self._kept: dict[int, Kept] = {}
        self._features: dict[str, list[Tensor]] = defaultdict(list)
        self._good: list[tuple[Try, Image]] = []  # of the place that is being looked at
        self._num_looked_at = 0
        self.rejected: Counter[str] = Counter()

    def rounds(self) -> Iterator[list[Try]]:
        """Tries, the candidates of each place side by side; then one more for each that is empty.

        A round is complete before the next is asked for.
        """
        num_first, places = self._selection.candidates, range(len(self._prompts))
        yield [Try(place, number) for place in places for number in range(num_first)]
        for number in range(num_first, self._cleaning.max_tries):
            if empty := [place for place in places if place not in self._kept]:
                yield [Try(place, number) for place in empty]

    def seed(self, each: Try) -> int:
        """The seed that makes this picture."""
        return try_seed(self._seeds[each.place], each.number)

    def look_at(self, batch: Sequence[Try], pictures: Pictures) -> int:
        """Keep or reject the pictures of a batch, in order; the number of places it filled."""
        before = len(self._kept)
        for each, image, flagged in zip(batch, pictures.images, pictures.flagged, strict=True):
            if wrong := blemish(image, flagged, self._cleaning):
                self.rejected[wrong] += 1
            else:
                self._good.append((each, image))
            if each.number >= self._selection.candidates - 1:
                self._settle(self._good)
                self._good = []
        self._num_looked_at += len(batch)
        if not self._kept and self._num_looked_at >= HOPELESS:
            raise DataError(f"none of the first {self._num_looked_at} pictures is good{self._why}")
        return len(self._kept) - before

    def finished(self) -> list[Kept]:
        """Every place's picture in order; DataError when one is empty."""
        empty = [place for place in range(len(self._prompts)) if place not in self._kept]
        if empty:
            raise DataError(
                f"{len(empty)} of {len(self._prompts)} pairs, such as {self._prompts[empty[0]]!r}, "
                f"have no good picture after {self._cleaning.max_tries} tries{self._why}"
            )
        return [self._kept[place] for place in range(len(self._prompts))]

    def _settle(self, good: Sequence[tuple[Try, Image]]) -> None:
        """Keep the best of the good pictures of one place."""
        if not good:
            return
        chosen = good[0] if self._judge is None else self._best(self._judge, good)
        if chosen is not None:
            each, image = chosen
            self._kept[each.place] = Kept(encode_png(image), self.seed(each))

    def _best(self, judge: Judge, good: Sequence[tuple[Try, Image]]) -> tuple[Try, Image] | None:
        import torch  # takes a second: only where a teacher is asked

        prompt = self._prompts[good[0][0].place]
        features_CD, confidence_C = judge([image for _, image in good], [prompt] * len(good))
        before = self._features[prompt]
        kept_KD = torch.stack(before) if before else features_CD[:0]
        verdicts = choose(features_CD, confidence_C.tolist(), kept_KD, self._selection)
        self.rejected.update(verdict for verdict in verdicts if verdict != "kept")
        if "kept" not in verdicts:
            return None
        number = verdicts.index("kept")
        before.append(features_CD[number])
        return good[number]

    @property
    def _why(self) -> str:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(self.rejected.items()))
        return (
            f" ({counts}); look at synthesis.generator (a safety checker blackens pictures), or "
            "set synthesis.cleaning otherwise"
        )
