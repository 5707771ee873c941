"""Stage synthesize: what was known before a task, as replay pairs in Parquet shards."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import prefect
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from gift_core.errors import DataError
from gift_core.prompts import draw_prompts, pair_seed
from gift_core.settings import Settings
from tasks.images import encode_png
from tasks.manifests import PairsManifest, ShardManifest, canonical_json, sha256_hex
from tasks.models.encoders import best_device
from tasks.models.generators import Generator
from tasks.progress import Progress
from tasks.sequence import SynthesisSettings
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, plan_output, run_output
from tasks.store.shards import ReplayPair, write_shard

MAX_TASKS = 100
"""`pair_seed` leaves room for as many; it keeps the draws of sequences and tasks apart."""


class ShardRange(Settings):
    """A part of a task's shards, counted from 0: what one of several runs makes."""

    first: int = Field(ge=0, description="The first shard")
    last: int = Field(ge=0, description="The last shard, made as well")


class PairsPlan(Settings):
    """Every replay pair of a task before it is made: prompts and seeds, cut into shards."""

    task: str
    generator_identity: str
    settings: SynthesisSettings
    seed: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The first pair of each shard."""
        return tuple(range(0, len(self.prompts), self.settings.pairs_per_shard))

    def starts_in(self, shards: ShardRange | None) -> tuple[int, ...]:
        """The first pair of each shard of a part; of all shards for None."""
        return self.starts if shards is None else self.starts[shards.first : shards.last + 1]

    def shard(self, start: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Prompts and seeds of the shard that begins at pair `start`."""
        stop = start + self.settings.pairs_per_shard
        return self.prompts[start:stop], self.seeds[start:stop]


def plan_pairs(
    task: str,
    task_index: int,
    pool: Sequence[str],
    settings: SynthesisSettings,
    generator_identity: str,
    seed: int,
) -> PairsPlan:
    """Draw the prompts of a task and give each pair its seed (docs/method.md, synthetic pairs)."""
    prompts = draw_prompts(pool, settings.num_pairs, MAX_TASKS * seed + task_index)
    return PairsPlan(
        task=task,
        generator_identity=generator_identity,
        settings=settings,
        seed=seed,
        prompts=prompts,
        seeds=tuple(pair_seed(number, task_index, seed) for number in range(len(prompts))),
    )


class LazyGenerator:
    """Loads the generator when the first shard is missing, not before."""

    def __init__(self, settings: SynthesisSettings) -> None:
        self._settings = settings
        self._loaded: Generator | None = None

    def __call__(self) -> Generator:
        """The generator, loaded once."""
        if self._loaded is None:
            self._loaded = self._settings.generator.load(best_device())
        return self._loaded


@prefect.task(
    task_run_name="shard-{plan.task}-{start}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def generate_shard(
    store: ObjectStore, plan: PairsPlan, start: int, generator: Callable[[], Generator]
) -> Produced[ShardManifest]:
    """Make one shard of pairs, or find it made: equal plan, equal bytes on the same device."""
    prompts, _ = plan.shard(start)
    manifest = planned_shard(plan, start)

    def make(directory: Path) -> ShardManifest:
        pairs = _generate(plan, start, generator())
        write_shard(directory / f"pairs-{start:06d}.parquet", pairs)
        num_rejected = len(prompts) - len(pairs)
        return manifest.model_copy(update={"num_pairs": len(pairs), "num_rejected": num_rejected})

    return run_output(store, manifest, make, device=str(best_device()))


def planned_shard(plan: PairsPlan, start: int) -> ShardManifest:
    """The manifest of a shard before it is made: its key is settled."""
    prompts, seeds = plan.shard(start)
    return plan_output(
        ShardManifest,
        name=f"{plan.task}-{start}",
        inputs={"generator": plan.generator_identity},
        settings={
            "generator": plan.settings.generator.model_dump(
                mode="json", exclude={"model", "revision"}
            ),
            "task": plan.task,
            "start": start,
            "prompts": list(prompts),
            "seeds": list(seeds),
        },
        seed=plan.seed,
        start=start,
        num_pairs=0,
        num_rejected=0,
    )


def _generate(plan: PairsPlan, start: int, generator: Generator) -> list[ReplayPair]:
    """Pictures batch by batch; entirely black ones (the safety checker's) are left out."""
    prompts, seeds = plan.shard(start)
    batch_size = plan.settings.generator.batch_size
    pairs: list[ReplayPair] = []
    with Progress(f"Replay pairs of {plan.task} from {start}", len(prompts), "pairs") as progress:
        for first in range(0, len(prompts), batch_size):
            batch = slice(first, first + batch_size)
            images = generator.generate(prompts[batch], seeds[batch])
            pairs += [
                ReplayPair(
                    image_bytes=encode_png(image),
                    prompt=prompt,
                    seed=seed,
                    generator=generator.identity,
                    task=plan.task,
                    index=start + first + offset,
                )
                for offset, (image, prompt, seed) in enumerate(
                    zip(images, prompts[batch], seeds[batch], strict=True)
                )
                if not is_black(image)
            ]
            progress.advance(len(images))
    return pairs


def is_black(image: np.ndarray) -> bool:
    """Whether no pixel of a uint8 picture (H, W, 3) holds any light."""
    return not image.any()


@prefect.task(task_run_name="commit-pairs-{plan.task}", cache_policy=NO_CACHE, persist_result=False)
def commit_pairs(
    store: ObjectStore, plan: PairsPlan, shards: Sequence[ShardManifest]
) -> Produced[PairsManifest]:
    """Commit the shards of a task as one set of replay pairs.

    Raises DataError when the generator gave too few pictures to contrast with one another.
    """
    inputs = {f"shard-{shard.start:06d}": shard.digest for shard in shards}
    num_pairs = sum(shard.num_pairs for shard in shards)
    if num_pairs < 2:
        raise DataError(
            f"{plan.task}: {num_pairs} of {len(plan.prompts)} generated pictures were not black; "
            "check synthesis.generator (its safety checker blackens pictures)"
        )
    settings = plan.settings.model_dump(mode="json", exclude={"generator": {"model", "revision"}})
    manifest = plan_output(
        PairsManifest,
        name=plan.task,
        inputs=inputs,
        settings=settings,
        seed=plan.seed,
        task=plan.task,
        generator=plan.generator_identity,
        num_pairs=num_pairs,
        num_rejected=sum(shard.num_rejected for shard in shards),
        prompts_sha256=sha256_hex(canonical_json(list(plan.prompts))),
        files=tuple(ref for shard in shards for ref in shard.files),
    )
    return run_output(store, manifest, lambda _folder: None)
