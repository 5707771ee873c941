"""How a process learns a task: one alone, or one rank of several, by the same code.

A run is a folder. What comes in: `parent/` (the model to start from), and where they are used
`replay.safetensors` (what is replayed), `fisher.safetensors` (what EWC holds by),
`initial.safetensors` (what WiSE-FT mixes in), `resume.safetensors` (where to go on). What comes
out: events, a file for each checkpoint, and `learnt/` (the new model).
"""

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gift_core.collectives import Ranks, any_rank
from gift_core.engine import Precision, default_precision, make_engine, matrix_precision
from gift_core.errors import GiftError
from gift_core.features import trainable_parameters
from gift_core.finetune_settings import FinetuneSettings
from gift_core.finishing import finish_
from gift_core.freezing import Trained, freeze_towers_
from gift_core.step import ReplayBatch, TaskBatch
from gift_core.training import TrainingState, train
from tasks.check import PlannedDataSet, PlannedTask
from tasks.data.loaders import augmented_batches
from tasks.data.workers import default_workers
from tasks.manifests import Record
from tasks.models.encoders import Encoder, export_tuned, load_encoder
from tasks.reference import training_split
from tasks.replay import ReplaySet
from tasks.sequence import ExecutionSettings
from tasks.store.checkpoints import load_tensors, save_tensors
from tasks.tensorboard import peak_memory_bytes

if TYPE_CHECKING:
    from tasks.models.towers import Towers

PARENT, LEARNT = "parent", "learnt"
FISHER, INITIAL = "fisher.safetensors", "initial.safetensors"
REPLAY, RESUME = "replay.safetensors", "resume.safetensors"
REPLAY_SEED_OFFSET = 5_000_000
"""Keeps the order of the replay pairs apart from that of the task's images."""

Event = dict[str, Any]
"""kind "step": number, the fields of StepReport, memory; "checkpoint": number, file; "note": text.
"""


class Interrupted(GiftError):  # noqa: N818 - no error
    """The run was asked to stop; what it had learnt is in the checkpoint it has just written."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number
        """The signal that was heard."""


class LearningJob(Record):
    """What a process needs to know; everything large lies in `folder`."""

    planned: PlannedTask
    seed: int
    execution: ExecutionSettings
    folder: Path
    replay_images: Path | None
    joint: tuple[PlannedDataSet, ...] = ()


def precision_of(settings: FinetuneSettings, device: torch.device) -> Precision:
    """The precision that was asked for, or the device's own."""
    return default_precision(device) if settings.precision == "auto" else settings.precision


def learn(job: LearningJob, ranks: Ranks, device: torch.device) -> Generator[Event]:
    """Learn the task from where the folder says, telling what happens.

    Rank 0 writes the files. When the process is asked to stop (SIGTERM, Ctrl-C), the step is
    finished, a checkpoint written, and Interrupted raised. Raises Diverged, and what the readers
    of data and model raise.
    """
    settings = job.planned.finetune
    student = load_encoder(job.folder / PARENT, device)
    student.model.recompute = job.execution.recompute
    precision = precision_of(settings, device)
    torch.manual_seed(job.seed + ranks.rank)
    merge_ = _choose_what_learns(student.model, settings.trained)
    if job.execution.compile:
        reason = student.model.compile_or_say_why(*_example(student, job))
        if reason:
            yield {"kind": "note", "text": f"torch.compile is not used: {reason}"}
    with matrix_precision(precision), _asked_to_stop() as asked:
        engine = make_engine(student.model, precision, ranks, device)
        fisher = _in_order(student, job.folder / FISHER)
        state = TrainingState.start(student.model, settings, engine, fisher)
        if (job.folder / RESUME).exists():
            state.restore_(load_tensors(job.folder / RESUME))
        with closing(_batches(student, job, ranks, state.step)) as batches:
            for report in train(state, batches):
                memory = peak_memory_bytes(device)
                yield {"kind": "step", "step": state.step, "memory": memory, **asdict(report)}
                stopping = any_rank(bool(asked), ranks, device)
                if stopping or _is_due(state.step, job):
                    yield from _checkpoint(state, job, ranks)
                if stopping:
                    text = f"{job.planned.name}: stopped after step {state.step}"
                    raise Interrupted(text, asked[0] if asked else signal.SIGTERM)
    finish_(state, _in_order(student, job.folder / INITIAL))
    if ranks.rank == 0:
        merge_()
        (job.folder / LEARNT).mkdir()
        export_tuned(student.model, job.folder / PARENT, job.folder / LEARNT)


def _choose_what_learns(model: "Towers", trained: Trained) -> Callable[[], None]:
    """Freeze what does not learn, and give what makes the model open_clip's own again.

    Before the processes join: they then share the gradients of what learns, and no others.
    """
    freeze_towers_(model, trained)
    if trained.lora is None:
        return lambda: None
    from tasks.models.lora import LowRankUpdates  # peft takes seconds: only where it is asked for

    return LowRankUpdates(model, trained).merge_


def _in_order(student: Encoder, path: Path) -> list[Tensor] | None:
    """A file's tensors in the order of the student's weights, on its device; None without it."""
    if not path.exists():
        return None
    tensors = load_tensors(path)
    return [tensors[name].to(student.device) for name in trainable_parameters(student.model)]


def _is_due(step: int, job: LearningJob) -> bool:
    every = job.execution.checkpoint_every
    return every > 0 and step % every == 0 and step < job.planned.finetune.num_steps


def _checkpoint(state: TrainingState, job: LearningJob, ranks: Ranks) -> Iterator[Event]:
    if ranks.rank == 0:
        file = job.folder / f"step-{state.step:08d}.safetensors"
        save_tensors(file, state.tensors(), {})
        yield {"kind": "checkpoint", "step": state.step, "file": file.name}


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collect the signals that ask the process to stop, in place of stopping within a step.

    A second Ctrl-C stops at once. Only the main thread hears signals; elsewhere the last checkpoint
    stands.
    """
    asked: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _batches(
    student: Encoder, job: LearningJob, ranks: Ranks, start: int
) -> Generator[tuple[TaskBatch, ReplayBatch | None]]:
    settings, seed = job.planned.finetune, job.seed
    rows = ranks.rows(settings.batch_size)
    replayed: Iterator[ReplayBatch | None] = iter(lambda: None, 0)
    if job.replay_images is not None:
        replay = ReplaySet.load(job.folder / REPLAY, job.replay_images)
        replayed = replay.batches(
            student, settings.batch_size, seed + REPLAY_SEED_OFFSET, start, rows
        )
    workers = job.execution.workers
    split, prompts = training_split(job.planned, job.joint)
    drawn = augmented_batches(
        split,
        student.augment,
        settings.batch_size,
        seed,
        start=start,
        rows=rows,
        workers=default_workers(ranks.size) if workers is None else workers,
    )
    class_tokens_KL = student.tokenize(prompts)
    with closing(drawn):  # its workers stop with it, whatever ends the run
        for (images_bCHW, labels_B), pairs in zip(drawn, replayed, strict=False):
            task = TaskBatch(
                images_bCHW=student.normalise(images_bCHW),
                labels_B=labels_B.to(student.device),
                class_tokens_KL=class_tokens_KL,
            )
            yield task, pairs


def _example(student: Encoder, job: LearningJob) -> tuple[Tensor, Tensor]:
    """An image and the class prompts, for a compiler to be tried on."""
    image = job.planned.data.open_split("train").image(0)
    return student.normalise(student.crop(image)[None]), student.tokenize(job.planned.prompts)
