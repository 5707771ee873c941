"""Stage synthesize: what was known before a task, as replay pairs in Parquet shards."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import prefect
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from gift_core.errors import DataError, SettingsError
from gift_core.prompts import draw_prompts, pair_seed
from gift_core.settings import Settings, added
from tasks.adapters import Part, StoredAdapters, adapter_inputs, by_adapter
from tasks.generation import Kept, SynthesisSettings, make_pictures
from tasks.manifests import (
    AdapterManifest,
    Json,
    ModelManifest,
    PairsManifest,
    ShardManifest,
    canonical_json,
    sha256_hex,
)
from tasks.models.encoders import best_device
from tasks.models.generators import Generator, check_identity
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
    adapters: tuple[AdapterManifest, ...] = added(
        (), description="The generator adapted to earlier tasks, in their order"
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

    def by_adapter(self, prompts: Sequence[str]) -> list[Part]:
        """Which adapter makes which of the prompts (by their places), the plain generator first."""
        return by_adapter(self.adapters, prompts)


def plan_pairs(
    task: str,
    task_index: int,
    pool: Sequence[str],
    settings: SynthesisSettings,
    generator_identity: str,
    seed: int,
    teacher: ModelManifest | None = None,
    adapters: Sequence[AdapterManifest] = (),
) -> PairsPlan:
    """Draw the prompts of a task and give each pair its seed (docs/method.md, synthetic pairs).

    `teacher`, the model before the task, matters where `selection` asks it; `adapters` are those of
    the earlier tasks, in order, and stand in the plan where their prompts are drawn. Raises
    SettingsError when the generator has no picture for any prompt, or the draw wants more than
    there are.
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
        adapters=tuple(adapters),
    )


class LazyGenerator:
    """Loads the generator when the first shard is missing, not before; likewise each adapter."""

    def __init__(self, settings: SynthesisSettings, store: ObjectStore | None = None) -> None:
        self._settings, self._store = settings, store
        self._loaded: Generator | None = None
        self._adapters: StoredAdapters | None = None

    def __call__(self, adapter: AdapterManifest | None = None) -> Generator:
        """The generator, loaded once, as it is with this adapter of the store (None: by itself)."""
        if self._loaded is None:
            self._loaded = self._settings.generator.load(best_device())
        if adapter is not None and self._adapters is None:
            if self._store is None:
                raise ValueError("adapters come from a store, and none was given")
            self._adapters = StoredAdapters(self._store, self._loaded)
        if self._adapters is not None:
            self._adapters.use(adapter)
        return self._loaded


@prefect.task(
    task_run_name="shard-{plan.task}-{start}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def generate_shard(
    store: ObjectStore, plan: PairsPlan, start: int, generator: Callable[..., Generator]
) -> Callable[[], Produced[ShardManifest]]:
    """Make one shard of pairs, or find it made: equal plan, equal bytes on the same device.

    `generator` gives the plain generator, or, called with the manifest of an adapter, the one that
    is adapted by it. What is returned commits the shard, and may do so while the next one is made
    (`tasks.behind`).
    """
    prompts, _ = plan.shard(start)
    manifest = planned_shard(plan, start)

    def make(directory: Path) -> ShardManifest:
        kept, rejected = _make_pictures(store, plan, start, generator)
        made_by = {
            place: f"+{adapter.task}@{adapter.digest[:16]}"
            for adapter, places in plan.by_adapter(prompts)
            if adapter is not None
            for place in places
        }
        pairs = [
            ReplayPair(
                image_bytes=picture.image_bytes,
                prompt=prompt,
                seed=picture.seed,
                generator=plan.generator_identity + made_by.get(number, ""),
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
    inputs |= adapter_inputs(plan.adapters, prompts)
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

    How it is adapted stands with the adapters, which are inputs. Settings that came later are left
    out at their defaults (`gift_core.settings.added`).
    """
    apart = plan.settings.generator.NAMED_BY_IDENTITY
    left_out: Any = {"generator": set(apart), "adaptation": True}
    return plan.settings.model_dump(mode="json", exclude=left_out)


def _make_pictures(
    store: ObjectStore, plan: PairsPlan, start: int, generator: Callable[..., Generator]
) -> tuple[list[Kept], Counter[str]]:
    """Exactly one good picture for each pair of a shard; DataError when that cannot be had.

    The plain generator makes its pairs first, then each adapter its own: no batch is shared.
    SettingsError when the generator here is another one than the plan's: a worker's own folder.
    """
    check_identity(generator().identity, plan.generator_identity)
    prompts, seeds = plan.shard(start)
    judge = None
    if plan.teacher is not None:
        from tasks.recognition import teacher_judge  # torch takes a second: only where asked

        judge = teacher_judge(store, plan.teacher, plan.prompts)
    what = f"Replay pairs of {plan.task} from {start}"
    kept: dict[int, Kept] = {}
    rejected: Counter[str] = Counter()
    try:
        with Progress(what, len(prompts), "pairs") as progress:
            for adapter, places in plan.by_adapter(prompts):
                pictures, others = make_pictures(
                    [prompts[place] for place in places],
                    [seeds[place] for place in places],
                    plan.settings,
                    generator() if adapter is None else generator(adapter),
                    judge,
                    progress.advance,
                )
                kept |= zip(places, pictures, strict=True)
                rejected += others
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    return [kept[place] for place in range(len(prompts))], rejected


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
    adapted = {each.task: len(own) for each, own in plan.by_adapter(plan.prompts) if each}
    manifest = plan_output(
        PairsManifest,
        name=plan.task,
        inputs=inputs | adapter_inputs(plan.adapters, plan.prompts),
        settings=deciding(plan),
        seed=plan.seed,
        task=plan.task,
        generator=plan.generator_identity,
        num_pairs=num_pairs,
        num_rejected=sum(shard.num_rejected for shard in shards),
        rejected=dict(sorted(rejected.items())),
        prompts_sha256=sha256_hex(canonical_json(list(plan.prompts))),
        adapted=adapted,
        files=tuple(ref for shard in shards for ref in shard.files),
    )
    return run_output(store, manifest, lambda _folder: None)
