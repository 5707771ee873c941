"""Stage synthesize: what was known before a task, as replay pairs in Parquet shards."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import prefect
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from gift_core.errors import DataError, SettingsError
from gift_core.prompts import draw_prompts, pair_seed
from gift_core.settings import Settings, added
from tasks.generation import Kept, SynthesisSettings, make_pictures
from tasks.manifests import (
    Json,
    ModelManifest,
    PairsManifest,
    ShardManifest,
    canonical_json,
    sha256_hex,
)
from tasks.models.encoders import best_device
from tasks.models.generators import Generator
from tasks.progress import Progress
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, make_output, plan_output, run_output
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
    teacher: ModelManifest | None = added(
        None, description="The model that selects pictures; empty: none is asked"
    )
    batch_size_found: str | None = added(
        None, description="Digest of the output that says the batch size; empty: it was set"
    )

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
    teacher: ModelManifest | None = None,
) -> PairsPlan:
    """Draw the prompts of a task and give each pair its seed (docs/method.md, synthetic pairs).

    `teacher`, the model before the task, matters where `selection` asks it. Raises SettingsError
    when the generator has no picture for any prompt, or the draw wants more than there are.
    """
    known = settings.generator.pool(tuple(pool))
    prompts = draw_prompts(known, settings.num_pairs, MAX_TASKS * seed + task_index, settings.draw)
    if settings.selection.asks_teacher and teacher is None:
        raise SettingsError("synthesis.selection: there is no model to ask; leave it out")
    return PairsPlan(
        task=task,
        generator_identity=generator_identity,
        settings=settings,
        seed=seed,
        prompts=prompts,
        seeds=tuple(pair_seed(number, task_index, seed) for number in range(len(prompts))),
        teacher=teacher if settings.selection.asks_teacher else None,
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
) -> Callable[[], Produced[ShardManifest]]:
    """Make one shard of pairs, or find it made: equal plan, equal bytes on the same device.

    What is returned commits it, and may do so while the next one is made (`tasks.behind`).
    """
    prompts, _ = plan.shard(start)
    manifest = planned_shard(plan, start)

    def make(directory: Path) -> ShardManifest:
        kept, rejected = _make_pictures(store, plan, start, generator())
        pairs = [
            ReplayPair(
                image_bytes=picture.image_bytes,
                prompt=prompt,
                seed=picture.seed,
                generator=plan.generator_identity,
                task=plan.task,
                index=start + number,
            )
            for number, (prompt, picture) in enumerate(zip(prompts, kept, strict=True))
        ]
        write_shard(directory / f"pairs-{start:06d}.parquet", pairs)
        counts = {"num_rejected": rejected.total(), "rejected": dict(sorted(rejected.items()))}
        return manifest.model_copy(update={"num_pairs": len(pairs)} | counts)

    return make_output(store, manifest, make, device=str(best_device()))


def planned_shard(plan: PairsPlan, start: int) -> ShardManifest:
    """The manifest of a shard before it is made: its key is settled."""
    prompts, seeds = plan.shard(start)
    inputs = {"generator": plan.generator_identity}
    if plan.teacher is not None:
        inputs["model"] = plan.teacher.digest
    settings = {
        "generator": deciding(plan)["generator"],
        "task": plan.task,
        "start": start,
        "prompts": list(prompts),
        "seeds": list(seeds),
    } | plan.settings.model_dump(mode="json", include={"cleaning", "selection"})
    return plan_output(
        ShardManifest,
        name=f"{plan.task}-{start}",
        inputs=inputs,
        settings=settings,
        seed=plan.seed,
        start=start,
        num_pairs=0,
        num_rejected=0,
    )


def deciding(plan: PairsPlan) -> Json:
    """The settings that decide pictures; where a generator lies does not, what it is stands apart.

    Settings that came later are left out at their defaults (`gift_core.settings.added`).
    """
    apart = plan.settings.generator.NAMED_BY_IDENTITY
    return plan.settings.model_dump(mode="json", exclude={"generator": set(apart)})


def _make_pictures(
    store: ObjectStore, plan: PairsPlan, start: int, generator: Generator
) -> tuple[list[Kept], Counter[str]]:
    """Exactly one good picture for each pair of a shard; DataError when that cannot be had.

    SettingsError when the generator here is another one than the plan's: a worker's own folder.
    """
    if generator.identity != plan.generator_identity:
        raise SettingsError(
            f"synthesis.generator: this worker has {generator.identity} where the plan was made "
            f"for {plan.generator_identity}; give every worker the same files"
        )
    prompts, seeds = plan.shard(start)
    judge = None
    if plan.teacher is not None:
        from tasks.recognition import teacher_judge  # torch takes a second: only where asked

        judge = teacher_judge(store, plan.teacher, plan.prompts)
    what = f"Replay pairs of {plan.task} from {start}"
    try:
        with Progress(what, len(prompts), "pairs") as progress:
            return make_pictures(prompts, seeds, plan.settings, generator, judge, progress.advance)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None


@prefect.task(task_run_name="commit-pairs-{plan.task}", cache_policy=NO_CACHE, persist_result=False)
def commit_pairs(
    store: ObjectStore, plan: PairsPlan, shards: Sequence[ShardManifest]
) -> Produced[PairsManifest]:
    """Commit the shards of a task as one set of replay pairs.

    Raises DataError when the pairs are too few to contrast with one another, or a shard is short.
    """
    inputs = {f"shard-{shard.start:06d}": shard.digest for shard in shards}
    if plan.batch_size_found is not None:
        inputs["batch-size"] = plan.batch_size_found
    for shard in shards:
        planned = len(plan.shard(shard.start)[0])
        if shard.num_pairs != planned:  # made before black pictures were replaced
            raise DataError(
                f"{plan.task}: {shard.directory} holds {shard.num_pairs} of {planned} pairs; "
                "remove it from the store to have it made again"
            )
    num_pairs = sum(shard.num_pairs for shard in shards)
    if num_pairs < 2:
        raise DataError(
            f"{plan.task}: one pair cannot be contrasted with others; raise synthesis.num_pairs"
        )
    rejected = sum((Counter(shard.rejected) for shard in shards), Counter())
    manifest = plan_output(
        PairsManifest,
        name=plan.task,
        inputs=inputs,
        settings=deciding(plan),
        seed=plan.seed,
        task=plan.task,
        generator=plan.generator_identity,
        num_pairs=num_pairs,
        num_rejected=sum(shard.num_rejected for shard in shards),
        rejected=dict(sorted(rejected.items())),
        prompts_sha256=sha256_hex(canonical_json(list(plan.prompts))),
        files=tuple(ref for shard in shards for ref in shard.files),
    )
    return run_output(store, manifest, lambda _folder: None)
