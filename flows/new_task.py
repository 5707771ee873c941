"""One more task for a sequence: learnt on top of its head, after all that arrived before it."""

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from flows.continual_sequence import Override, continual_sequence
from flows.inbox import GrowingFile
from flows.storage import sequence_store
from flows.turns import turn
from gift_core.errors import DataError, Diverged, GiftError, Refused
from gift_core.settings import Settings
from tasks.arriving import check_again, settle, take_in
from tasks.check import check_sequence
from tasks.growth import check_unchanged, grown, models_of
from tasks.manifests import SequenceManifest
from tasks.report import load_sequence_manifest
from tasks.sequence import SequenceSettings, TaskSettings, load_sequence
from tasks.store.arrivals import Arrival, State, arrivals_of
from tasks.store.heads import ModelReference, head_of
from tasks.store.objects import ObjectStore

Task = Annotated[
    TaskSettings | None,
    Field(description="The new task; empty: everything that arrived and is not learnt yet"),
]


class Learnt(Settings):
    """What a run has added to a sequence."""

    sequence: str
    tasks: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One sentence that says what was learnt."""
        done = f"learnt {', '.join(self.tasks)}" if self.tasks else "nothing new to learn"
        return f"{self.sequence}: {done}"


def _name_of_run() -> str:
    """The task's name after the sequence's, so that a run is found by what it learns."""
    file, task = flow_run.parameters.get("file"), flow_run.parameters.get("task")
    name = task.name if isinstance(task, TaskSettings) else "all-that-arrived"
    return f"{Path(str(file)).stem}-{name}"


@flow(name="gift", flow_run_name=_name_of_run, persist_result=False)
def new_task(file: GrowingFile, task: Task = None, override: Override = None) -> Learnt:
    """Learn one task on top of a sequence's head, after those that arrived before it.

    The same task is learnt once. Runs of one sequence wait for one another. Raises what ended this
    task: Refused when the gate did not let it pass, DataError, SettingsError, Diverged.
    """
    sequence = load_sequence(Path(file))
    store = sequence_store(sequence.store)
    own = take_in(store, sequence, task)[0].number if task is not None else None
    learnt = []
    if _due(store, sequence, own, override):
        with turn(sequence.name):
            for arrival in _due(store, sequence, own, override):
                word = override if arrival.number == own else None
                if _learnt(store, sequence, arrival, word):
                    learnt.append(arrival.name)
    result = Learnt(sequence=sequence.name, tasks=tuple(learnt))
    get_run_logger().info(result.summary)
    return _unless_ended(store, sequence.name, own, result)


def _due(
    store: ObjectStore, sequence: SequenceSettings, own: int | None, override: str | None
) -> list[Arrival]:
    """What a run has to learn, in order of arrival; nothing when its own task is settled.

    Who asks again for a task that failed, or for one that was refused with an override, means it.
    """
    tasks = arrivals_of(store, sequence.name).tasks
    if own is None:
        return [each for each in tasks if each.state == "arrived"]
    mine = tasks[own - 1]
    if mine.state == "learnt" or (mine.state == "refused" and not override):
        return []
    return [each for each in tasks[: own - 1] if each.state == "arrived"] + [mine]


def _learnt(
    store: ObjectStore, sequence: SequenceSettings, arrival: Arrival, override: str | None
) -> bool:
    """Learn one arrival and keep what became of it; False when the task itself ended it.

    What is wrong with the sequence, its store or its earlier tasks is raised: the task waits on.
    """
    log, head = get_run_logger(), head_of(store, sequence.name)
    if head is None and sequence.tasks:  # the sequence begins with what its file lists
        continual_sequence(sequence=sequence)
        head = head_of(store, sequence.name)
    models = models_of(store, head) if head else ()
    task = TaskSettings.model_validate(arrival.settings)
    try:
        check_again(sequence, arrival)
        wanted = grown(sequence, arrivals_of(store, sequence.name), models, task)
    except DataError as error:
        return _ended(store, sequence.name, arrival, error)
    plan = check_sequence(wanted, store)
    if head is not None:
        check_unchanged(store, plan, head, models)
    try:
        result = continual_sequence(sequence=wanted, override=override)
    except (Refused, Diverged, DataError) as error:
        return _ended(store, sequence.name, arrival, error)
    model, now = _last_model(result.manifest), head_of(store, sequence.name)
    if now is not None and model.output not in {now.model.output, *now.lineage} and now != head:
        log.warning("%s: the head moved meanwhile; %s is learnt again", sequence.name, arrival.name)
        return _learnt(store, sequence, arrival, override)
    settle(store, sequence.name, arrival.number, "learnt", model=model)
    return True


def _ended(store: ObjectStore, sequence: str, arrival: Arrival, error: GiftError) -> bool:
    """Keep why a task was not learnt; False. A refused model is kept, and named here."""
    state: State = "refused" if isinstance(error, Refused) else "failed"
    model = _last_model(load_sequence_manifest(store, sequence)) if state == "refused" else None
    settle(store, sequence, arrival.number, state, f"{type(error).__name__}: {error}", model)
    get_run_logger().error("%s: %s was not learnt: %s", sequence, arrival.name, error)
    return False


def _last_model(manifest: SequenceManifest) -> ModelReference:
    number = len(manifest.models) - 1
    return ModelReference(
        output=manifest.models[number], digest=manifest.inputs[f"model-{number:02d}"]
    )


def _unless_ended(store: ObjectStore, sequence: str, own: int | None, result: Learnt) -> Learnt:
    """The result; the sentence that ended the run's own task, where one did."""
    if own is not None:
        mine = arrivals_of(store, sequence).tasks[own - 1]
        if mine.state in {"refused", "failed"}:
            kind, _, sentence = mine.reason.partition(": ")
            kinds = {each.__name__: each for each in (Refused, Diverged, DataError)}
            raise kinds.get(kind, GiftError)(sentence)
    return result
