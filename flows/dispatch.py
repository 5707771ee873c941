"""The stages of one run of a plan, here or on pools, and the tally of what was computed."""

from typing import TypeVar

from flows import stages
from flows.pools import Pools
from gift_core.errors import Refused
from gift_core.gate import Failure
from gift_core.settings import Settings
from tasks.check import Plan, PlannedTask
from tasks.manifests import (
    AdapterManifest,
    FisherManifest,
    Manifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    SequenceManifest,
)
from tasks.promote import refusal
from tasks.reference import reference_of, reference_of_fisher
from tasks.store.outputs import Produced
from tasks.synthesize import plan_pairs

M = TypeVar("M", bound=Manifest)


class SequenceResult(Settings):
    """What a run of a sequence leaves: its manifest, and how much of it had to be computed."""

    manifest: SequenceManifest
    num_computed: int
    num_reused: int

    @property
    def summary(self) -> str:
        """One sentence that says how much was computed."""
        found = f"{self.num_reused} found in the store"
        if self.num_computed == 0:
            return f"{self.manifest.name}: nothing to recompute, all {found}"
        return f"{self.manifest.name}: {self.num_computed} stage outputs computed, {found}"

    def unless_refused(self) -> "SequenceResult":
        """Return the result itself; Refused, with one sentence, when the gate stopped the run."""
        if self.manifest.refused:
            name, *_, last = self.manifest.name, *self.manifest.tasks
            raise Refused(refusal(name, last, self.manifest.refused))
        return self


class Stages:
    """The stages of one run, each bound to the plan; everything they give is remembered."""

    def __init__(self, plan: Plan, override: str | None = None) -> None:
        self._plan = plan
        self._override = override
        self._refused: tuple[Failure, ...] = ()
        self._store = plan.sequence.store
        execution = plan.sequence.execution
        # Both have the same calls: in this process, or as runs of their own on the workers.
        pools = Pools(execution.generation_runs) if execution.stages == "pools" else None
        self._on_gpu = pools or stages
        self._produced: list[Produced[Manifest]] = []

    def pretrained(self) -> ModelManifest:
        """theta_0."""
        return self._keep(
            stages.pretrained(self._store, self._plan.sequence.model, self._plan.model_identity)
        )

    def synthesize(self, task: PlannedTask) -> PairsManifest | None:
        """Replay pairs of what was known before `task`; None where the method needs none."""
        plan, sequence = self._plan, self._plan.sequence
        if plan.generator_identity is None:
            return None
        pairs = plan_pairs(
            task.name,
            task.index,
            plan.prompt_pool(task),
            sequence.synthesis,
            plan.generator_identity,
            sequence.seed,
            self._all(ModelManifest)[-1],
            self._all(AdapterManifest),
        )
        produced = self._on_gpu.synthesize(self._store, pairs)
        return self._keep(produced) if produced else None

    def finetune(
        self, task: PlannedTask, parent: ModelManifest, pairs: PairsManifest | None
    ) -> ModelManifest:
        """The model after `task`; the parent itself where the method is to learn nothing."""
        sequence = self._plan.sequence
        if sequence.method == "zero-shot":
            return parent
        models, fishers = self._all(ModelManifest), self._all(FisherManifest)
        reference = reference_of(self._plan, task, models[0], fishers)
        given = task, sequence.seed, parent, pairs, sequence.execution, reference
        return self._keep(self._on_gpu.finetune(self._store, *given))

    def adapt(self, task: PlannedTask, model: ModelManifest) -> AdapterManifest | None:
        """The generator adapted to a task that is learnt; None where that is not asked for.

        After every task, also the last: the sequence may grow, and the images are at hand now.
        """
        plan, synthesis = self._plan, self._plan.sequence.synthesis
        if plan.generator_identity is None or synthesis.adaptation is None:
            return None
        given = task.data_set, model, synthesis, plan.generator_identity, plan.sequence.seed
        return self._keep(self._on_gpu.adapt(self._store, *given))

    def estimate_fisher(
        self, model: ModelManifest, parent: ModelManifest, pairs: PairsManifest | None
    ) -> FisherManifest | None:
        """Fisher diagonal and drift of a new model; None where there are no pairs to ask.

        EWC asks the task's own images.
        """
        sequence, objective = self._plan.sequence, self._plan.sequence.objective
        if pairs is None and not objective.is_ewc:
            return None
        reference = reference_of_fisher(self._plan, model, self._all(ModelManifest)[0])
        given = model, parent, pairs, objective, sequence.fisher, sequence.execution.cache
        return self._keep(self._on_gpu.estimate_fisher(self._store, *given, reference))

    def evaluate(self, model: ModelManifest) -> ScoresManifest:
        """One row of the accuracy matrix."""
        plan, sequence = self._plan, self._plan.sequence
        data_sets = tuple(plan.tasks), tuple(plan.panel)
        pairs = [each for each in self._all(PairsManifest) if each.task == model.task]
        return self._keep(
            self._on_gpu.evaluate(
                self._store,
                model,
                *data_sets,
                sequence.evaluation,
                sequence.execution.cache,
                *pairs,
            )
        )

    def promote(self, model: ModelManifest) -> bool:
        """Whether the sequence goes on with a new model: the gate judges the two latest rows.

        theta_0 is no new model: where nothing is learnt, nothing is promoted.
        """
        if model.task is None:
            return True
        before, after = self._all(ScoresManifest)[-2:]
        decision = stages.promote(
            self._plan.sequence.name,
            self._store,
            self._plan.sequence.gate,
            model,
            {f"{made.stage}/{made.key}": made.digest for made in self._all(Manifest)},
            before,
            after,
            self._override,
        )
        self._refused = decision.refused
        return decision.stands

    def report(self) -> SequenceResult:
        """The report over everything that this run produced."""
        manifest = self._keep(
            stages.report(
                self._plan.sequence,
                self._all(ModelManifest),
                self._all(PairsManifest),
                self._all(FisherManifest),
                self._all(ScoresManifest),
                self._refused,
                self._all(AdapterManifest),
            )
        )
        num_reused = sum(produced.reused for produced in self._produced)
        return SequenceResult(
            manifest=manifest,
            num_computed=len(self._produced) - num_reused,
            num_reused=num_reused,
        )

    def _keep(self, produced: Produced[M]) -> M:
        self._produced.append(produced)
        return produced.manifest

    def _all(self, kind: type[M]) -> tuple[M, ...]:
        return tuple(p.manifest for p in self._produced if isinstance(p.manifest, kind))


def stages_for(plan: Plan, override: str | None = None) -> Stages:
    """The stages of a plan; `override` is a word to the gate.

    Raises SettingsError when they shall run on pools and their deployments are not there.
    """
    return Stages(plan, override)
