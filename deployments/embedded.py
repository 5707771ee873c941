"""Settings of Prefect's embedded mode, set before Prefect is imported."""

import os

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
