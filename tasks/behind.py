"""Work that may lag behind whoever asks for it, by one piece."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class OneBehind:
    """Does pieces of work in a thread of its own, in order; the asker is at most one ahead.

    Leaving it waits for the last piece, also after an error or a cancellation: what was handed over
    is done, and no thread stays behind.

    Example:
        >>> with OneBehind("double") as behind:
        ...     doubled = [behind.submit(lambda number=number: 2 * number) for number in range(3)]
        >>> [each.result() for each in doubled]
        [0, 2, 4]
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._last: Future[object] | None = None

    def __enter__(self) -> Self:
        return self

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Hand a piece over, then wait for the one before; raises the error of that one.

        The piece is done either way: what led to it is not lost. It logs where its asker does.
        """
        asked: Future[T] = self._executor.submit(copy_context().run, work)
        before, self._last = self._last, asked
        if before is not None:
            before.result()
        return asked

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the last piece; its error is raised, or logged beside one that is under way."""
        self._executor.shutdown()
        failed = self._last.exception() if self._last is not None else None
        if failed is None or failed is error:
            return
        if error is None:
            raise failed
        logger.warning("beside this, the work before it failed: %s", failed)
