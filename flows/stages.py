"""Each stage as a flow of its own over its Prefect tasks: seen, named and deployed alone.

A stage takes settings and manifests, nothing large and nothing secret, and returns what it
committed or found; what a person looks at is published either way.
"""

from prefect import flow
from prefect.runtime import flow_run

from flows.sentences import log_sentences
from flows.storage import sequence_store
from gift_core.gate import Failure, GatePolicy
from gift_core.objective import Objective
from tasks import artifacts
from tasks.check import PlannedDataSet, PlannedTask
from tasks.estimate_fisher import fisher_of_model
from tasks.evaluate import evaluate as score_model
from tasks.finetune import finetune as learn_task
from tasks.manifests import (
    FisherManifest,
    ModelManifest,
    PairsManifest,
    ScoresManifest,
    SequenceManifest,
)
from tasks.models.encoders import ModelSettings
from tasks.pretrained import take_pretrained
from tasks.promote import Decision
from tasks.promote import promote as move_head
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
from tasks.synthesize import LazyGenerator, PairsPlan, commit_pairs, generate_shard

log_sentences()


@flow(name="pretrained", flow_run_name="pretrained", persist_result=False)
def pretrained(
    store: StoreSettings, model: ModelSettings, identity: str
) -> Produced[ModelManifest]:
    """Take theta_0 into the store."""
    objects = sequence_store(store)
    produced = take_pretrained(objects, model, identity)
    artifacts.publish_output(objects, produced)
    return produced


@flow(name="synthesize", flow_run_name="synthesize-{plan.task}", persist_result=False)
def synthesize(store: StoreSettings, plan: PairsPlan) -> Produced[PairsManifest]:
    """Make the replay pairs of a task, shard by shard."""
    objects = sequence_store(store)
    generator = LazyGenerator(plan.settings)
    shards = [generate_shard(objects, plan, start, generator).manifest for start in plan.starts]
    produced = commit_pairs(objects, plan, shards)
    artifacts.publish_pairs(objects, produced.manifest)
    artifacts.publish_output(objects, produced, shards)
    return produced


@flow(name="finetune", flow_run_name="finetune-{planned.name}", persist_result=False)
def finetune(
    store: StoreSettings,
    planned: PlannedTask,
    seed: int,
    parent: ModelManifest,
    pairs: PairsManifest | None,
    execution: ExecutionSettings,
) -> Produced[ModelManifest]:
    """Learn a task on top of its parent."""
    objects = sequence_store(store)
    produced = learn_task(objects, planned, seed, parent, pairs, execution)
    artifacts.publish_model(objects, produced.manifest)
    artifacts.publish_output(objects, produced, [parent, pairs])
    return produced


@flow(name="estimate-fisher", flow_run_name="estimate-fisher-{model.name}", persist_result=False)
def estimate_fisher(
    store: StoreSettings,
    model: ModelManifest,
    parent: ModelManifest,
    pairs: PairsManifest,
    objective: Objective,
    settings: FisherSettings,
    cache: str,
) -> Produced[FisherManifest]:
    """Fisher diagonal and drift of a new model."""
    objects = sequence_store(store)
    produced = fisher_of_model(objects, model, parent, pairs, objective, settings, cache)
    artifacts.publish_fisher(produced.manifest)
    artifacts.publish_output(objects, produced, [model, parent, pairs])
    return produced


@flow(name="evaluate", flow_run_name="evaluate-after-{model.name}", persist_result=False)
def evaluate(
    store: StoreSettings,
    model: ModelManifest,
    tasks: tuple[PlannedDataSet, ...],
    panel: tuple[PlannedDataSet, ...],
    settings: EvaluationSettings,
) -> Produced[ScoresManifest]:
    """One row of the accuracy matrix."""
    objects = sequence_store(store)
    produced = score_model(objects, model, tasks, panel, settings)
    artifacts.publish_scores(produced.manifest)
    artifacts.publish_output(objects, produced, [model])
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
) -> Produced[SequenceManifest]:
    """Matrix, metrics and the HTML report of a whole sequence."""
    objects = sequence_store(sequence.store)
    produced = write_report(objects, sequence, models, pairs, fishers, scores, refused)
    artifacts.publish_sequence(objects, produced.manifest)
    artifacts.publish_output(objects, produced, [*models, *pairs, *fishers, *scores])
    address = report_address(objects, sequence.name)
    rows = produced.manifest.scores
    artifacts.publish_state(objects, sequence.name, sequence.gate, rows, bool(refused), address)
    return produced
