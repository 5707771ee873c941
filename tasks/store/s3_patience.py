"""How long object storage is waited for, and how often it is asked again: every bound in one place.

A request is tried 7 times: refused connections, answers 500 to 504, SlowDown and silence. The
pauses between tries are drawn up to 1, 2, 4, 8, 16 and 20 seconds, 25 on average, so a server's
restart is outlived and one that is gone is told within a minute; silence costs 30 seconds a try.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import ClientPayloadError
from botocore.exceptions import IncompleteReadError, ResponseStreamingError

T = TypeVar("T")

# In seconds. A check is for a person who waits.
PATIENT: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"total_max_attempts": 7, "mode": "standard"},
}
IMPATIENT: dict[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 6,
    "retries": {"total_max_attempts": 1},
}
NUM_READS = 4
"""Tries of a body that ends in the middle: botocore repeats requests, not bodies."""
NUM_CONFLICTS = 5
"""Tries of a conditional write while another writer of the same key is at work."""
_SLOWEST_BYTES_PER_SECOND = 250_000
_TORN = (ClientPayloadError, IncompleteReadError, ResponseStreamingError)


def pause(attempt: int) -> None:
    """Wait before the next try of what the server has just begun to answer."""
    time.sleep(0.2 * 2**attempt)


def read_again(read: Callable[[], T]) -> T:
    """Read, and again when the body is torn; the last tear is raised."""
    for attempt in range(NUM_READS - 1):
        try:
            return read()
        except _TORN:
            pause(attempt)
    return read()


def seconds_for(num_bytes: int) -> float:
    """A limit that only a line which no longer moves will meet."""
    return 360 + num_bytes / _SLOWEST_BYTES_PER_SECOND
