"""The scheduled look into an inbox: what is new is checked, kept, and announced as an event."""

from functools import partial
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.runtime import flow_run
from pydantic import Field

from flows.storage import sequence_store
from gift_core.errors import DataError, SettingsError
from gift_core.settings import Settings
from tasks.arriving import mark_announced, take_in
from tasks.inbox import BucketInbox, FolderInbox, Inbox, Waiting
from tasks.notices import quarantine_markdown
from tasks.publishing import publish_markdown
from tasks.sequence import SequenceSettings, StoreSettings, load_sequence
from tasks.store.arrivals import Arrival, arrivals_of
from tasks.store.objects import FolderStore, ObjectStore
from tasks.task_file import read_task

EVENT = "gift.task.arrived"

GrowingFile = Annotated[
    str, Field(description="The sequence file (YAML) whose sequence learns what arrives")
]
InboxPlace = Annotated[
    str, Field(min_length=1, description="A folder, or s3://bucket/prefix: a folder a task in it")
]
Mirror = Annotated[
    str,
    Field(
        min_length=1,
        description="Folder that all workers share; what arrives in a bucket is copied into it",
    ),
]
Block = Annotated[
    str | None,
    Field(description="Prefect block with the credentials of the inbox's bucket; empty: AWS's"),
]


class Looked(Settings):
    """What a look into an inbox found."""

    arrived: tuple[str, ...]
    quarantined: tuple[str, ...]


def _name_of_run() -> str:
    return f"inbox-{Path(str(flow_run.parameters.get('file'))).stem}"


@flow(name="gift", flow_run_name=_name_of_run, persist_result=False)
def inbox(
    file: GrowingFile, inbox: InboxPlace, mirror: Mirror = ".gift/arrived", block: Block = None
) -> Looked:
    """Look for new tasks: each is found once, checked, kept as arrived and announced.

    A broken one goes to quarantine with its reason and does not end the look. What was kept but
    not announced (this process was killed in between) is announced by the next look.
    """
    sequence = load_sequence(Path(file))
    store = sequence_store(sequence.store)
    place = _opened(inbox, mirror, block)
    known = {arrival.place for arrival in arrivals_of(store, sequence.name).tasks}
    quarantined = [
        waiting.name
        for waiting in place.look()
        if waiting.place not in known and not _taken_in(store, sequence, place, waiting)
    ]
    new = [each for each in arrivals_of(store, sequence.name).tasks if not each.announced]
    for arrival in new:
        _announce(file, sequence.name, arrival)
        mark_announced(store, sequence.name, arrival.number)
    return Looked(arrived=tuple(arrival.name for arrival in new), quarantined=tuple(quarantined))


def _opened(place: str, mirror: str, block: str | None) -> Inbox:
    store = sequence_store(StoreSettings(url=place, block=block))
    if isinstance(store, FolderStore):
        return FolderInbox(store.root)
    return BucketInbox(store, Path(mirror))


def _taken_in(
    store: ObjectStore, sequence: SequenceSettings, place: Inbox, waiting: Waiting
) -> bool:
    """Keep a folder's task as arrived; False when it is broken and lies in quarantine now."""
    log = get_run_logger()
    try:
        task = read_task(place.fetch(waiting), waiting.name)
        arrival, is_new = take_in(store, sequence, task, waiting.place)
    except (DataError, SettingsError) as error:
        where = place.quarantine(waiting, str(error))
        log.error("%s/%s is broken and lies in %s now: %s", place.url, waiting.name, where, error)
        publish_markdown(
            f"quarantined-{sequence.name}-{waiting.name}",
            f"A task for {sequence.name} that could not be taken in",
            partial(quarantine_markdown, waiting.name, where, str(error)),
        )
        return False
    if is_new:
        log.info("%s: %s arrived, number %d", sequence.name, arrival.name, arrival.number)
    else:
        log.info(
            "%s/%s is the same task as arrival %d, %s; it is learnt once",
            place.url, waiting.name, arrival.number, arrival.name,
        )  # fmt: skip
    return True


def _announce(file: str, sequence: str, arrival: Arrival) -> None:
    """Tell the server that a task arrived; it has the event when this returns."""
    event = Event(
        event=EVENT,
        resource={"prefect.resource.id": f"gift.task.{sequence}.{arrival.name}"},
        payload={"file": file, "task": arrival.settings},
    )
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")])
