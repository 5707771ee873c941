"""An error that is one sentence is logged as one; a traceback is kept for what is a bug."""

import logging

from gift_core.errors import GiftError

RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], GiftError):
        record.exc_info = None
    return True


def log_sentences() -> None:
    """Let Prefect's run logs, terminal and dashboard, show a GiftError without its traceback."""
    for name in RUN_LOGGERS:
        logging.getLogger(name).addFilter(_without_traceback)
