"""Each stage as a flow of its own over its Prefect tasks: seen, named and deployed alone.

A stage takes settings and manifests, nothing secret, and returns what it committed or found; what a
person looks at is published either way. A run of its own is given a reference in place of what is
large (flows/handover.py).
"""

from collections.abc import Callable

from prefect import flow
from prefect.runtime import flow_run

from flows.handover import taken
from flows.sentences import log_sentences
from flows.storage import sequence_store, stage_store
from gift_core.gate import Failure, GatePolicy
from gift_core.objective import Objective
from tasks import artifacts
from tasks.adapt import adapt_generator
from tasks.batch_size import with_batch_size
from tasks.behind import OneBehind
from tasks.check import PlannedDataSet, PlannedTask
from tasks.estimate_fisher import fisher_of_model
from tasks.evaluate import evaluate as score_model
from tasks.finetune import finetune as learn_task
from tasks.generation import SynthesisSettings
from tasks.manifests import (
    AdapterManifest,
    FileRef,
    FisherManifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    SequenceManifest,
)
from tasks.models.starting_model import ModelSettings
from tasks.pretrained import take_pretrained
from tasks.promote import Decision
from tasks.promote import promote as move_head
from tasks.reference import NOTHING, Reference
from tasks.report import report as write_report
from tasks.report import report_address
from tasks.sequence import (
    EvaluationSettings,
    ExecutionSettings,
    FisherSettings,
    SequenceSettings,
    StoreSettings,
)
from tasks.store.outputs import Produced
from tasks.synthesize import LazyGenerator, PairsPlan, ShardRange, commit_pairs, generate_shard

log_sentences()


def _named_by(stage: str, parameter: str, attribute: str) -> Callable[[], str]:
    """A run's name by what it works on; where that is a reference, the name it was sent with."""

    def name() -> str:
        given = flow_run.parameters[parameter]
        if isinstance(given, FileRef):
            return str(flow_run.name)
        part = flow_run.parameters.get("shards")
        shards = f"-{part.first}-{part.last}" if isinstance(part, ShardRange) else ""
        return f"{stage}-{getattr(given, attribute)}{shards}"

    return name


@flow(name="pretrained", flow_run_name="pretrained", persist_result=False)
def pretrained(
    store: StoreSettings, model: ModelSettings, identity: str
) -> Produced[ModelManifest]:
    """Take theta_0 into the store."""
    objects = sequence_store(store)
    produced = take_pretrained(objects, model, identity)
    artifacts.publish_output(objects, produced)
    return produced


@flow(
    name="synthesize",
    flow_run_name=_named_by("synthesize", "plan", "task"),
    persist_result=False,
)
def synthesize(
    store: StoreSettings, plan: PairsPlan | FileRef, shards: ShardRange | None = None
) -> Produced[PairsManifest] | None:
    """Make the replay pairs of a task, shard by shard.

    Of a part of the shards nothing is returned: whoever shared them out commits the whole.
    """
    with stage_store(store) as objects:
        plan = taken(objects, PairsPlan, plan)
        generator = LazyGenerator(plan.settings, objects)
        plan = with_batch_size(objects, plan, generator)
        with OneBehind("gift-commit") as behind:  # a shard is stored while the next one is made
            commits = [
                behind.submit(generate_shard(objects, plan, start, generator))
                for start in plan.starts_in(shards)
            ]
        if shards is not None:
            return None
        made = [commit.result().manifest for commit in commits]
        produced = commit_pairs(objects, plan, made)
        artifacts.publish_pairs(objects, produced.manifest)
        artifacts.publish_output(objects, produced, [*made, *plan.adapters])
        return produced


@flow(name="finetune", flow_run_name=_named_by("finetune", "planned", "name"), persist_result=False)
def finetune(
    store: StoreSettings,
    planned: PlannedTask | FileRef,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | FileRef | None,
    execution: ExecutionSettings,
    reference: Reference | FileRef = NOTHING,
) -> Produced[ModelManifest]:
    """Learn a task on top of its parent."""
    with stage_store(store) as objects:
        planned = taken(objects, PlannedTask, planned)
        pairs = taken(objects, PairsManifest, pairs)
        beside = taken(objects, Reference, reference)
        produced = learn_task(objects, planned, seed, parent, pairs, execution, beside)
        artifacts.publish_model(objects, produced.manifest)
        artifacts.publish_output(objects, produced, [parent, pairs, *beside.manifests])
        return produced


@flow(name="adapt", flow_run_name=_named_by("adapt", "planned", "name"), persist_result=False)
def adapt(
    store: StoreSettings,
    planned: PlannedDataSet | FileRef,
    model: ModelManifest,
    synthesis: SynthesisSettings,
    generator: str,
    seed: int,
) -> Produced[AdapterManifest]:
    """Adapt the generator to a task that is learnt."""
    with stage_store(store) as objects:
        planned = taken(objects, PlannedDataSet, planned)
        produced = adapt_generator(objects, planned, model, synthesis, generator, seed)
        artifacts.publish_adapter(objects, produced.manifest)
        artifacts.publish_output(objects, produced, [model])
        return produced


@flow(name="estimate-fisher", flow_run_name="estimate-fisher-{model.name}", persist_result=False)
def estimate_fisher(
    store: StoreSettings,
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest | FileRef | None,
    objective: Objective,
    settings: FisherSettings,
    cache: str,
    reference: Reference | FileRef = NOTHING,
) -> Produced[FisherManifest]:
    """Fisher diagonal and drift of a new model."""
    with stage_store(store) as objects:
        pairs, beside = taken(objects, PairsManifest, pairs), taken(objects, Reference, reference)
        given = objects, model, parent, pairs, objective, settings, cache, beside
        produced = fisher_of_model(*given)
        artifacts.publish_fisher(produced.manifest)
        artifacts.publish_output(objects, produced, [model, parent, pairs, *beside.manifests])
        return produced


@flow(name="evaluate", flow_run_name="evaluate-after-{model.name}", persist_result=False)
def evaluate(
    store: StoreSettings,
    model: ModelManifest,
    tasks: tuple[PlannedDataSet, ...] | FileRef,
    panel: tuple[PlannedDataSet, ...] | FileRef,
    settings: EvaluationSettings,
    cache: str,
    pairs: PairsManifest | FileRef | None = None,
) -> Produced[ScoresManifest]:
    """One row of the accuracy matrix; what its data sets share with earlier rows is found."""
    with stage_store(store) as objects:
        tasks = taken(objects, tuple[PlannedDataSet, ...], tasks)
        panel = taken(objects, tuple[PlannedDataSet, ...], panel)
        pairs = taken(objects, PairsManifest, pairs)
        produced = score_model(objects, model, tasks, panel, settings, cache, pairs)
        artifacts.publish_scores(produced.manifest)
        artifacts.publish_output(objects, produced, [model, pairs])
        return produced


@flow(name="promote", flow_run_name="promote-{model.name}", persist_result=False)
def promote(
    sequence: str,
    store: StoreSettings,
    policy: GatePolicy,
    model: ModelManifest,
    lineage: dict[str, str],
    before: ScoresManifest,
    after: ScoresManifest,
    override: str | None,
) -> Decision:
    """Let the gate judge a new model, and move the sequence's head to it."""
    objects, actor = sequence_store(store), f"flow run {flow_run.root_flow_run_id or flow_run.id}"
    decision = move_head(objects, sequence, policy, model, lineage, before, after, override, actor)
    artifacts.publish_verdict(sequence, policy, before, after, decision.stands)
    artifacts.publish_state(objects, sequence, policy, lineage, not decision.stands)
    return decision


@flow(name="report", flow_run_name="report-{sequence.name}", persist_result=False)
def report(
    sequence: SequenceSettings,
    models: tuple[ModelManifest, ...],
    pairs: tuple[PairsManifest, ...],
    fishers: tuple[FisherManifest, ...],
    scores: tuple[ScoresManifest, ...],
    refused: tuple[Failure, ...] = (),
    adapters: tuple[AdapterManifest, ...] = (),
) -> Produced[SequenceManifest]:
    """Matrix, metrics and the HTML report of a whole sequence."""
    objects = sequence_store(sequence.store)
    produced = write_report(objects, sequence, models, pairs, fishers, scores, refused, adapters)
    artifacts.publish_sequence(objects, produced.manifest)
    artifacts.publish_output(objects, produced, [*models, *pairs, *fishers, *scores, *adapters])
    address = report_address(objects, sequence.name)
    rows = produced.manifest.scores
    artifacts.publish_state(objects, sequence.name, sequence.gate, rows, bool(refused), address)
    return produced
