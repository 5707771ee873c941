"""Stage evaluate: one row of the accuracy matrix, zero-shot, on every task seen and unseen."""

from collections.abc import Sequence
from pathlib import Path

import prefect
from prefect.cache_policies import NO_CACHE

from tasks.check import PlannedDataSet
from tasks.manifests import Manifest, ModelManifest, PairsManifest, ScoresManifest
from tasks.progress import Progress
from tasks.scoring import Scorer, words_of
from tasks.sequence import EvaluationSettings
from tasks.store.objects import ObjectStore
from tasks.store.outputs import Produced, find_planned, plan_output, run_output


@prefect.task(
    name="evaluate",
    task_run_name="evaluate-after-{model.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def evaluate(
    store: ObjectStore,
    model: ModelManifest,
    tasks: Sequence[PlannedDataSet],
    panel: Sequence[PlannedDataSet],
    settings: EvaluationSettings,
    cache: str,
    pairs: PairsManifest | None = None,
) -> Produced[ScoresManifest]:
    """Score a model on every task of the sequence and on the panel (docs/method.md, metrics).

    `pairs` are those that its task was learnt with: what it finds among them is told too. Each
    data set's score is an output of its own. Cropped images are kept in the folder `cache`.
    """
    planned = planned_scores(model, tasks, panel, settings, pairs)
    if (found := find_planned(store, planned)) is not None:
        return found
    data_sets = [*tasks, *panel]
    seen = seen_by(model, tasks)
    scorer = Scorer(store, model, settings, Path(cache))
    total = 2 * sum(data_set.num_images[settings.split] for data_set in data_sets)
    with Progress(f"Evaluating after {model.name}", total, "images") as progress:
        parts = []
        for data_set in data_sets:

            def told(count: int, name: str = data_set.name) -> None:
                progress.advance(count, note=name)

            among = seen if data_set in seen else ()
            parts.append(scorer.score(data_set, among, told).manifest)
    made: list[Manifest] = [*parts]
    retrieval = None
    if pairs is not None:
        retrieved = scorer.retrieve(pairs).manifest
        retrieval = retrieved.retrieval
        made.append(retrieved)
    scores = [part.score for part in parts]
    whole = planned.model_copy(
        update={
            "tasks": tuple(scores[: len(tasks)]),
            "panel": tuple(scores[len(tasks) :]),
            "retrieval": retrieval,
            # The parts hang below the row by their files: the row's key is known before them.
            "files": tuple(ref for part in made for ref in part.files),
        }
    )
    return run_output(store, whole, lambda _folder: None)


def seen_by(model: ModelManifest, tasks: Sequence[PlannedDataSet]) -> tuple[PlannedDataSet, ...]:
    """The tasks that a model of the sequence has learnt, in order; none for theta_0."""
    names = [task.name for task in tasks]
    return tuple(tasks[: names.index(model.task) + 1]) if model.task in names else ()


def planned_scores(
    model: ModelManifest,
    tasks: Sequence[PlannedDataSet],
    panel: Sequence[PlannedDataSet],
    settings: EvaluationSettings,
    pairs: PairsManifest | None = None,
) -> ScoresManifest:
    """The manifest of a row before it is scored: its key is settled."""
    inputs = {"model": model.digest} | {
        f"data:{data_set.name}": data_set.digests[settings.split] for data_set in [*tasks, *panel]
    }
    if pairs is not None:
        inputs["pairs"] = pairs.digest
    decided = settings.model_dump(mode="json") | {
        "tasks": [words_of(data_set) for data_set in tasks],
        "panel": [words_of(data_set) for data_set in panel],
    }
    return plan_output(
        ScoresManifest,
        name=f"after-{model.name}",
        inputs=inputs,
        settings=decided,
        seed=0,
        model=model.digest,
        after_task=model.task,
        tasks=(),
        panel=(),
    )
