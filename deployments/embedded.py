"""Settings of Prefect's embedded mode, set before Prefect is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "gift_core,tasks",
}
"""A new home needs longer to start than Prefect's own 20 s, nothing may phone home, and
results, should anybody have them kept, are no pickles."""


def set_embedded_defaults() -> None:
    """Fill in what the environment leaves open; what a user has set stays."""
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """Run flows without heartbeats where Prefect is embedded; with a server they stay.

    The embedded server ends with the run, so nobody ever asks whether it lives, and the thread that
    would tell takes up to a second to end, in each stage. No environment variable says "none".
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    if PREFECT_API_URL.value():
        yield
        return
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
