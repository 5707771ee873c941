"""The numbers of a training as TensorBoard files, to look on while it runs.

`tensorboard --logdir .gift/tensorboard` shows them. They are a view and no output: nothing reads
them back, and a run that cannot write them goes on.
"""

import logging
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import torch

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

SPEED_WINDOW_SECONDS = 10.0
LOGGER = logging.getLogger("tasks")


class TrainingLog:
    """The TensorBoard files of one run: all scalars of a step as one record, on disk at once.

    `first_step` is how many steps were done before (a run resumed): what a broken run left of later
    steps is hidden. Without a folder nothing is written. A failure is told once, by `warn`, and
    nothing is written from then on.

    torch's SummaryWriter is not used: its thread prints a traceback of its own when the disk is
    full, and it holds back the last two minutes.

    Example:
        >>> with TrainingLog(Path(".gift/tensorboard/digits"), first_step=400) as log:
        ...     log.write(401, asdict(report), {"images_per_second": 812.0})
    """

    def __init__(
        self,
        folder: Path | None,
        first_step: int = 0,
        warn: Callable[[str], None] = LOGGER.warning,
    ) -> None:
        self._folder, self._warn = folder, warn
        self._file: BinaryIO | None = None
        if folder is not None:
            with self._giving_up():
                self._open(folder, first_step)

    def write(
        self, step: int, report: Mapping[str, float | None], speed: Mapping[str, float]
    ) -> None:
        """Add the scalars of a step, counted from 1; None is left out.

        `report` has the names and units of StepReport (`step` is ignored), `speed` has
        `images_per_second` and `memory_gib`, the peak.
        """
        if self._file is None:
            return
        with self._giving_up():
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in _scalars(report, speed).items()
            ]
            self._add(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file; nothing can be written after."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # each record was flushed, so nothing is lost here
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, folder: Path, first_step: int) -> None:
        # Not before it is needed: the import takes 0.2 s.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a run in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._add(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(step=first_step + 1, session_log=start))  # hides that step and later ones

    def _add(self, event: "Event") -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event.wall_time = time.time()
        writer = RecordWriter(self._file)
        writer.write(event.SerializeToString())
        writer.flush()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the training must not die of being watched
            self.close()
            self._warn(f"TensorBoard: nothing more is written to {self._folder} ({error})")


def _scalars(report: Mapping[str, float | None], speed: Mapping[str, float]) -> dict[str, float]:
    """Tags and values; TensorBoard draws what stands before the slash as one group of charts."""
    scalars: dict[str, float] = {}
    known = {name: value for name, value in report.items() if value is not None and name != "step"}
    for name, value in known.items():
        kind = name.rsplit("_", 1)[-1]
        if kind in ("loss", "accuracy"):
            scalars[f"{kind}/{name.removesuffix(f'_{kind}')}"] = value
        else:
            scalars[f"optimizer/{name}"] = value
    losses = [value for tag, value in scalars.items() if tag.startswith("loss/")]
    if losses:
        scalars["loss/total"] = sum(losses)
    for name, value in speed.items():
        scalars["memory/peak_gib" if name == "memory_gib" else f"speed/{name}"] = value
    return scalars


class Speedometer:
    """How many images a second, over the last ten seconds (or the last step, if it takes longer).

    `clock` gives seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        window_seconds: float = SPEED_WINDOW_SECONDS,
    ) -> None:
        self._clock, self._window = clock, window_seconds
        self._num_images = 0
        self._points: deque[tuple[float, int]] = deque()

    def count(self, num_images: int) -> float:
        """Count the images of a step that has just ended; images a second.

        0 after the first step: nobody saw it begin.
        """
        now = self._clock()
        self._num_images += num_images
        self._points.append((now, self._num_images))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window:
            self._points.popleft()
        then, num_then = self._points[0]
        return (self._num_images - num_then) / (now - then) if now > then else 0.0


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory ever used, bytes: torch's on a CUDA device, elsewhere the whole process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
