"""Taking a task in: its data looked at, its identity told, its place in the order settled."""

from gift_core.errors import DataError, SettingsError
from tasks.check import check_data_set
from tasks.growth import models_of, tasks_of
from tasks.manifests import canonical_json, sha256_hex
from tasks.sequence import SequenceSettings, TaskSettings
from tasks.store.arrivals import Arrival, Arrivals, State, arrivals_of, change_arrivals
from tasks.store.heads import ModelReference, head_of
from tasks.store.objects import ObjectStore


def looked_at(sequence: SequenceSettings, task: TaskSettings) -> Arrival:
    """A task as it would arrive: both splits opened, labels and class names checked.

    The same images with the same words are the same task, whatever its name and place.
    Raises DataError naming what is missing or does not fit.
    """
    found = check_data_set(task.name, task, ("train", sequence.evaluation.split))
    words = task.model_dump(mode="json", exclude={"data", "name"})
    identity = words | {"class_names": list(found.class_names), "digests": found.digests}
    return Arrival(
        number=1,
        name=task.name,
        identity=sha256_hex(canonical_json(identity)),
        settings=task.model_dump(mode="json"),
        digests=found.digests,
    )


def take_in(
    store: ObjectStore, sequence: SequenceSettings, task: TaskSettings, place: str = ""
) -> tuple[Arrival, bool]:
    """Keep a task as arrived, once; the arrival, and whether it is this one and not an earlier one.

    The same task from another place is kept as a duplicate, so that the place is known. Raises
    DataError for its data, SettingsError for a name that another task has.
    """
    # What did not come from an inbox was announced by whoever sent it.
    seen = {"place": place, "announced": not place}
    asked = looked_at(sequence, task).model_copy(update=seen)
    head = head_of(store, sequence.name)
    learnt = tasks_of(models_of(store, head)) if head else ()

    def add(arrivals: Arrivals) -> Arrivals:
        known = arrivals.known(asked.identity)
        if known is None:
            _check_name(sequence, arrivals, learnt, asked.name)
            return arrivals.with_added(asked)
        if place in {"", *(each.place for each in arrivals.tasks)}:
            return arrivals
        words = f"the same as arrival {known.number}"
        return arrivals.with_added(
            asked.model_copy(update={"state": "duplicate", "reason": words, "announced": True})
        )

    before = {each.number for each in arrivals_of(store, sequence.name).tasks}
    arrivals = change_arrivals(store, sequence.name, add)
    arrival = arrivals.known(asked.identity)
    if arrival is None:
        raise AssertionError("unreachable: it was added, and no entry is removed")
    return arrival, arrival.number not in before


def check_again(sequence: SequenceSettings, arrival: Arrival) -> None:
    """DataError unless the data of an arrival are still those that arrived."""
    now = looked_at(sequence, TaskSettings.model_validate(arrival.settings))
    if now.digests != arrival.digests:
        raise DataError(
            f"{arrival.name}: its data changed since it arrived; put them back, or let them arrive "
            "under another name"
        )


def settle(
    store: ObjectStore,
    sequence: str,
    number: int,
    state: State,
    reason: str = "",
    model: ModelReference | None = None,
) -> None:
    """Keep what became of an arrival."""
    changes = {"state": state, "reason": reason, "model": model}
    change_arrivals(store, sequence, lambda found: found.with_changed(number, **changes))


def mark_announced(store: ObjectStore, sequence: str, number: int) -> None:
    """Keep that an arrival was announced."""
    change_arrivals(store, sequence, lambda found: found.with_changed(number, announced=True))


def _check_name(
    sequence: SequenceSettings, arrivals: Arrivals, learnt: tuple[str, ...], name: str
) -> None:
    """SettingsError when another task has the name; one that was given up has it no longer."""
    taken = {each.name for each in arrivals.tasks if each.state == "arrived"} | set(learnt)
    taken |= {each.name for each in (*sequence.tasks, *sequence.panel)}
    if name in taken:
        raise SettingsError(
            f"{sequence.name} has a data set called {name} already, with other images or other "
            "words; give the new task another name"
        )
