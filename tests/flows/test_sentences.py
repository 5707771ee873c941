"""What Prefect logs of a failed run: a sentence alone for what is said on purpose."""

import io
import logging

import pytest

import flows.stages
from flows.sentences import RUN_LOGGERS
from gift_core.errors import StoreError

assert flows.stages  # importing the stages is what arranges it


@pytest.mark.parametrize("name", RUN_LOGGERS)
@pytest.mark.parametrize(
    ("error", "has_traceback"), [(StoreError("a sentence"), False), (KeyError("a bug"), True)]
)
def test_a_sentence_is_logged_without_a_traceback(
    name: str, error: Exception, has_traceback: bool
) -> None:
    logger, text = logging.getLogger(name), io.StringIO()
    handler = logging.StreamHandler(text)
    logger.addHandler(handler)
    try:
        try:
            raise error
        except Exception as caught:
            logger.exception("failed: %r", caught)
    finally:
        logger.removeHandler(handler)
    assert f"failed: {error!r}" in text.getvalue()
    assert ("Traceback" in text.getvalue()) == has_traceback
