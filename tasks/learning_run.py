"""Following a task that is being learnt: history, progress, TensorBoard, checkpoints in the store.

The same for one process and for several: both tell the same events.
"""

import json
import signal
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from gift_core.collectives import Ranks
from gift_core.errors import Diverged
from tasks.launch import EVENTS, run_ranks
from tasks.learning import RESUME, Event, Interrupted, LearningJob, learn
from tasks.models.encoders import best_device
from tasks.progress import Progress, run_logger
from tasks.store.history import History
from tasks.store.step_checkpoints import StepCheckpoints
from tasks.tensorboard import Speedometer, TrainingLog


def follow_learning(
    job: LearningJob, checkpoints: StepCheckpoints, measured: dict[str, float]
) -> History:
    """Learn the task of a prepared job, going on from its last checkpoint if there is one.

    Returns the history, one column a number of StepReport, and leaves speed and peak memory in
    `measured`. Raises what `learn` and `run_ranks`
    raise; the last checkpoint stays in the store then, and Diverged says where.
    """
    settings, name = job.planned.finetune, job.planned.name
    latest = checkpoints.fetch(job.folder / RESUME)
    first = latest.step if latest else 0
    if latest:
        run_logger().info("%s goes on from its checkpoint after step %d", name, first)
    with (
        Progress(f"Fine-tuning on {name}", settings.num_steps, "steps", start=first) as progress,
        _training_log(job, checkpoints, first) as log,
    ):
        run = _Run(job, checkpoints, dict(latest.history) if latest else {}, progress, log)
        try:
            with closing(_events(job)) as events:
                for event in events:
                    run.follow(event)
        except Diverged as error:
            raise Diverged(f"{name}: {error}; {_kept(checkpoints)}") from error
        except Interrupted as stopped:
            signal.raise_signal(stopped.number)  # heard, but left to its own handler until now
            raise
        except BaseException:
            run.catch_up()
            raise
    measured.update(run.measured)
    return run.history


class _Run:
    """What is known of a run so far."""

    def __init__(
        self,
        job: LearningJob,
        checkpoints: StepCheckpoints,
        history: History,
        progress: Progress,
        log: TrainingLog,
    ) -> None:
        self.history = history
        self._job, self._checkpoints, self._progress, self._log = job, checkpoints, progress, log
        self.measured: dict[str, float] = {}
        self._speed = Speedometer()
        self._num_events = 0

    def follow(self, event: Event) -> None:
        """Take in one event."""
        self._num_events += 1
        match event["kind"]:
            case "step":
                self._step(event)
            case "checkpoint":
                file = self._job.folder / event["file"]
                self._checkpoints.save(event["step"], file, self.history)
            case "note":
                run_logger().warning("%s", event["text"])

    def catch_up(self) -> None:
        """Take in what several processes told while they were being stopped."""
        events = self._job.folder / EVENTS
        if events.exists():
            *lines, _torn = events.read_bytes().split(b"\n")
            for line in lines[self._num_events :]:
                self.follow(json.loads(line))

    def _step(self, event: Event) -> None:
        columns = {key: value for key, value in event.items() if key not in ("kind", "memory")}
        for key, value in columns.items():
            self.history.setdefault(key, []).append(value)
        objective = self._job.planned.finetune.objective
        num_images = self._job.planned.finetune.batch_size * (2 if objective.uses_replay else 1)
        speed = {
            "images_per_second": self._speed.count(num_images),
            "memory_gib": event["memory"] / 2**30,
        }
        self._log.write(event["step"], columns, speed)
        self.measured = {
            "images_a_second": round(speed["images_per_second"], 1),
            "peak_memory_gib": round(speed["memory_gib"], 2),
        }
        note = f"loss {event['task_loss']:.3f}, task {event['task_accuracy']:.0f} %"
        if event["replay_accuracy"] is not None:
            note += f", replay {event['replay_accuracy']:.0f} %"
        note += f", {speed['images_per_second']:,.0f} images/s, {speed['memory_gib']:.1f} GiB"
        self._progress.advance(note=note)


def _events(job: LearningJob) -> Generator[Event]:
    if job.execution.processes == 1:
        return learn(job, Ranks(), best_device())
    file = job.folder / "job.json"
    file.write_text(job.model_dump_json())
    processes = job.execution.processes
    return run_ranks("tasks.finetune_rank", [str(file)], processes, job.folder, run_logger().info)


def _training_log(job: LearningJob, checkpoints: StepCheckpoints, first: int) -> TrainingLog:
    place, key = job.execution.tensorboard, checkpoints.directory.rsplit("/", 1)[-1]
    folder = Path(place) / f"{job.planned.name}-{key[:12]}" if place else None
    return TrainingLog(folder, first, run_logger().warning)


def _kept(checkpoints: StepCheckpoints) -> str:
    if checkpoints.latest is None:
        return "no checkpoint had been written before"
    return f"the checkpoint after step {checkpoints.latest.step} is kept in {checkpoints.place}"
