"""The whole method in one screen: a model learns a sequence of tasks and keeps what it knew."""

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from flows.dispatch import SequenceResult, stages_for
from flows.storage import sequence_store
from flows.turns import turn
from gift_core.errors import SettingsError
from tasks.check import check_sequence
from tasks.sequence import SequenceSettings, load_sequence
from tasks.store.leases import in_use

SequenceFile = Annotated[
    str | None, Field(description="A sequence file (YAML); read where no sequence is given below")
]
Sequence = Annotated[
    SequenceSettings | None, Field(description="A sequence spelled out; it wins over the file")
]
Override = Annotated[
    str | None,
    Field(max_length=500, description="Why models that the gate refuses are promoted all the same"),
]


def _name_of_run() -> str:
    """The sequence's name, or its file's, so that a run is found by what it learns."""
    sequence, file = flow_run.parameters.get("sequence"), flow_run.parameters.get("file")
    if isinstance(sequence, SequenceSettings):
        return sequence.name
    return Path(str(file)).stem


@flow(name="gift", flow_run_name=_name_of_run, persist_result=False)
def continual_sequence(
    file: SequenceFile = None, sequence: Sequence = None, override: Override = None
) -> SequenceResult:
    """Learn the tasks of a sequence one after the other (docs/method.md).

    What is wrong is said before any work; a stage whose output stands is found, not repeated.
    Raises Refused, after the report, when the gate does not let a model pass.
    """
    settings = _settings(file, sequence)
    store = sequence_store(settings.store)
    plan = check_sequence(settings, store)
    # Runs of one sequence wait for one another; `gift gc` spares what is made or found from here on
    with turn(settings.name), in_use(store):
        stage = stages_for(plan, override)  # each a run of its own, skipped when its output stands
        model = stage.pretrained()  # theta_0
        stage.evaluate(model)  # the zero-shot row
        for task in plan.tasks:
            pairs = stage.synthesize(task)  # what was known before, as pictures and prompts
            learnt = stage.finetune(task, model, pairs)  # teacher = anchor = theta_{t-1}
            stage.adapt(task, learnt)  # the generator, to how the task's images look
            stage.estimate_fisher(learnt, model, pairs)  # what matters now, and what moved
            stage.evaluate(learnt)  # the row after this task
            if not stage.promote(learnt):  # is the head now, or the gate refused it
                break
            model = learnt
        result = stage.report()
        get_run_logger().info(result.summary)
    return result.unless_refused()


def _settings(file: str | None, sequence: SequenceSettings | None) -> SequenceSettings:
    if sequence is not None:
        return sequence
    if file is None:
        raise SettingsError("neither file nor sequence is given; name a file or spell a sequence")
    return load_sequence(Path(file))
