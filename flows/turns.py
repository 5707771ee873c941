"""One run of a sequence at a time: runs wait for their turn at the Prefect server."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

LEASE_SECONDS = 60.0
"""The shortest that Prefect gives. It is renewed while a run lives; the turn of one that was killed
is free again after this and the 15 s between two looks of the server."""

_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())


@contextmanager
def turn(sequence: str) -> Iterator[None]:
    """Wait until no other run of the sequence is under way, and hold the others up meanwhile.

    The turn is a global concurrency limit of 1, named after the sequence. A run within a run that
    holds it goes on. Where Prefect runs inside this process there is nobody to ask, and nothing
    waits; two runs at once still lose nothing (docs/reliability.md), they only do work twice.
    """
    name = f"gift-{sequence}"
    if sequence in _held.get() or not _limited_to_one(name):
        yield
        return
    # A server that does not answer for a while must not end hours of work: the run goes on.
    with concurrency(
        name,
        occupy=1,
        strict=True,
        lease_duration=LEASE_SECONDS,
        raise_on_lease_renewal_failure=False,
    ):
        token = _held.set(_held.get() | {sequence})
        try:
            yield
        finally:
            _held.reset(token)


def _limited_to_one(name: str) -> bool:
    """Make the limit where there is a server of its own; False where there is none."""
    with get_client(sync_client=True) as client:
        if client.server_type == ServerType.EPHEMERAL:
            return False
        with suppress(ObjectAlreadyExists):  # another run made it in between
            client.upsert_global_concurrency_limit_by_name(name, 1)
    return True
