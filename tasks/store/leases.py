"""Leases: a run says in the store that it is under way, and `gift gc` spares what it works with.

    leases/<run>/began    written once: when, by the store's own clock
    leases/<run>/alive    written anew as long as the run lives

Whatever a run uses it has written or touched since it began, so one time says it all. The lease of
a run that was killed is not renewed and counts no longer after LOST_SECONDS.
"""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from gift_core.errors import StoreError
from tasks.store.objects import ObjectStore

LEASES = "leases"
RENEW_SECONDS = 60.0
LOST_SECONDS = 900.0
_JOIN_SECONDS = 10

logger = logging.getLogger(__name__)


@contextmanager
def in_use(store: ObjectStore) -> Iterator[None]:
    """Hold a lease while the block runs; StoreError when it cannot be taken.

    One that cannot be renewed is logged: the work goes on.
    """
    place, done = f"{LEASES}/{secrets.token_hex(8)}", Event()
    for name in ("alive", "began"):
        store.replace_bytes(f"{place}/{name}", b"")
    renewal = Thread(target=_renew, args=(store, place, done), name="gift-lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join(_JOIN_SECONDS)
        try:
            for name in ("began", "alive"):
                store.delete(f"{place}/{name}")
        except StoreError as error:
            logger.warning("the lease stays until `gift gc` removes it: %s", error)


def _renew(store: ObjectStore, place: str, done: Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            store.replace_bytes(f"{place}/alive", b"")
        except StoreError as error:
            logger.warning("the lease was not renewed: %s", error)


def leases(store: ObjectStore) -> dict[str, list[str]]:
    """The objects of each lease, of the living and of the dead."""
    found: dict[str, list[str]] = {}
    for path in store.list(LEASES):
        found.setdefault(path.split("/")[1], []).append(path)
    return found


def runs_under_way(store: ObjectStore, age: Callable[[str], float | None]) -> dict[str, float]:
    """The living leases, and how many seconds ago each run began; `age` is that of an object."""
    runs = {}
    for run in leases(store):
        began, alive = (age(f"{LEASES}/{run}/{name}") for name in ("began", "alive"))
        if began is not None and alive is not None and alive <= LOST_SECONDS:
            runs[run] = began
    return runs
