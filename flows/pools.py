"""The stages that want a GPU, each as a run of its deployment: the same calls as `flows.stages`.

An output that stands is found here, and no run is sent. What a run made is read back from the
store, so that results need no storage of their own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from flows import stages
from flows.handover import handed_over
from flows.pool_runs import PoolRun, check_deployments, run_on_pool
from flows.storage import sequence_store
from gift_core.errors import StageLost
from gift_core.objective import Objective
from tasks.adapt import planned_adapter
from tasks.batch_size import with_known_batch_size
from tasks.check import PlannedDataSet, PlannedTask
from tasks.estimate_fisher import planned_fisher
from tasks.evaluate import planned_scores
from tasks.finetune import planned_model
from tasks.generation import SynthesisSettings
from tasks.manifests import (
    AdapterManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    sha256_hex,
)
from tasks.reference import Reference
from tasks.sequence import (
    EvaluationSettings,
    ExecutionSettings,
    FisherSettings,
    StoreSettings,
)
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, find_output, find_planned
from tasks.synthesize import PairsPlan, ShardRange, planned_shard

M = TypeVar("M", bound=Manifest)

DEPLOYMENTS = {
    stage: f"{stage}/{stage}"
    for stage in ("synthesize", "finetune", "adapt", "estimate-fisher", "evaluate")
}
"""Flow and deployment of each stage, as prefect.yaml names them."""


class Pools:
    """The stages on workers; `generation_runs` share the shards of a task's replay pairs.

    Making one raises SettingsError when the deployments are not there.
    """

    def __init__(self, generation_runs: int) -> None:
        check_deployments(tuple(DEPLOYMENTS.values()))
        self._generation_runs = generation_runs

    def synthesize(self, store: StoreSettings, plan: PairsPlan) -> Produced[PairsManifest] | None:
        """Have the missing shards made, then commit the pairs here, where every shard is found."""
        objects = sequence_store(store)
        missing = _missing_shards(objects, plan)
        if missing:
            parts = self._parts(missing)
            run_on_pool([self._part(objects, store, plan, part) for part in parts])
        if lost := _missing_shards(objects, plan):
            raise _lost(objects, f"shard {lost[0]} of the replay pairs of {plan.task}")
        return stages.synthesize(store, plan)

    def finetune(
        self,
        store: StoreSettings,
        planned: PlannedTask,
        seed: int,
        parent: ModelManifest,
        pairs: PairsManifest | None,
        execution: ExecutionSettings,
        reference: Reference,
    ) -> Produced[ModelManifest]:
        """Have a task learnt on top of its parent."""
        return _produced(
            f"finetune-{planned.name}",
            planned_model(planned, seed, parent, pairs, reference),
            store,
            planned=planned,
            seed=seed,
            parent=parent,
            pairs=pairs,
            execution=execution,
            reference=reference,
        )

    def adapt(
        self,
        store: StoreSettings,
        planned: PlannedDataSet,
        model: ModelManifest,
        synthesis: SynthesisSettings,
        generator: str,
        seed: int,
    ) -> Produced[AdapterManifest]:
        """Have the generator adapted to a task that is learnt."""
        return _produced(
            f"adapt-{planned.name}",
            planned_adapter(planned, model, synthesis, generator, seed),
            store,
            planned=planned,
            model=model,
            synthesis=synthesis,
            generator=generator,
            seed=seed,
        )

    def estimate_fisher(
        self,
        store: StoreSettings,
        model: ModelManifest,
        parent: ModelManifest,
        pairs: PairsManifest | None,
        objective: Objective,
        settings: FisherSettings,
        cache: str,
        reference: Reference,
    ) -> Produced[FisherManifest]:
        """Have the Fisher diagonal of a new model estimated."""
        return _produced(
            f"estimate-fisher-{model.name}",
            planned_fisher(model, parent, pairs, objective, settings, reference),
            store,
            model=model,
            parent=parent,
            pairs=pairs,
            objective=objective,
            settings=settings,
            cache=cache,
            reference=reference,
        )

    def evaluate(
        self,
        store: StoreSettings,
        model: ModelManifest,
        tasks: tuple[PlannedDataSet, ...],
        panel: tuple[PlannedDataSet, ...],
        settings: EvaluationSettings,
        cache: str,
        pairs: PairsManifest | None = None,
    ) -> Produced[ScoresManifest]:
        """Have one row of the accuracy matrix scored."""
        return _produced(
            f"evaluate-after-{model.name}",
            planned_scores(model, tasks, panel, settings, pairs),
            store,
            model=model,
            tasks=[task.data_set for task in tasks],
            panel=panel,
            settings=settings,
            cache=cache,
            pairs=pairs,
        )

    def _parts(self, missing: Sequence[int]) -> list[ShardRange]:
        """The missing shards in as many contiguous parts as there are runs, of nearly one size."""
        num_parts = min(self._generation_runs, len(missing))
        edges = [len(missing) * number // num_parts for number in range(num_parts + 1)]
        return [
            ShardRange(first=missing[first], last=missing[stop - 1])
            for first, stop in pairwise(edges)
        ]

    def _part(
        self, objects: ObjectStore, store: StoreSettings, plan: PairsPlan, shards: ShardRange
    ) -> PoolRun:
        given = {"store": store, "plan": plan, "shards": shards}
        keys = [planned_shard(plan, start).key for start in plan.starts_in(shards)]
        return PoolRun(
            DEPLOYMENTS["synthesize"],
            f"synthesize-{plan.task}-{shards.first}-{shards.last}",
            {name: handed_over(objects, value) for name, value in given.items()},
            mark=f"synthesize-shard/{sha256_hex(''.join(keys).encode())[:16]}",
        )


def _missing_shards(objects: ObjectStore, plan: PairsPlan) -> list[int]:
    """The numbers of the shards that do not stand: all, while a worker has a batch size to find."""
    settled = with_known_batch_size(objects, plan)
    return [
        number
        for number, start in enumerate(plan.starts)
        if settled is None or find_planned(objects, planned_shard(settled, start)) is None
    ]


def _produced(name: str, wanted: M, store: StoreSettings, /, **given: object) -> Produced[M]:
    """Find the output that is planned, or have a run make it and read it back."""
    objects = sequence_store(store)
    if (found := find_planned(objects, wanted)) is not None:
        return found
    parameters = {key: handed_over(objects, value) for key, value in given.items()}
    parameters["store"] = store.model_dump(mode="json")
    mark = f"{wanted.stage}/{wanted.key[:16]}"
    run_on_pool([PoolRun(DEPLOYMENTS[wanted.stage], name, parameters, mark)])
    made = find_output(objects, type(wanted), wanted.stage, wanted.key)
    if made is None:
        raise _lost(objects, f"the output {mark} of {name}")
    return Produced(made, reused=False)


def _lost(objects: ObjectStore, what: str) -> StageLost:
    return StageLost(
        f"{objects.url}: {what} is not there, though its run ended well; let the workers of the "
        "pool use the same store (a folder is one machine's) and the same release"
    )
