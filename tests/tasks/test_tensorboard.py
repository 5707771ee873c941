"""What a run writes is what TensorBoard reads, and watching never costs a run its life."""

import logging
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gift_core.step import StepReport
from tasks.tensorboard import Speedometer, TrainingLog, peak_memory_bytes
from tests.worlds import ROOT

REPORT = {
    "step": 1.0,
    "task_loss": 1.5,
    "distillation_loss": 0.25,
    "alignment_loss": 0.125,
    "consolidation_loss": 0.0625,
    "learning_rate": 2.0**-17,
    "gradient_norm": 3.0,
    "task_accuracy": 75.0,
    "replay_accuracy": 87.5,
}
SPEED = {"images_per_second": 812.0, "memory_gib": 2.5}
ALL = {
    "loss/task": 1.5,
    "loss/distillation": 0.25,
    "loss/alignment": 0.125,
    "loss/consolidation": 0.0625,
    "loss/total": 1.9375,
    "optimizer/learning_rate": 2.0**-17,
    "optimizer/gradient_norm": 3.0,
    "accuracy/task": 75.0,
    "accuracy/replay": 87.5,
    "speed/images_per_second": 812.0,
    "memory/peak_gib": 2.5,
}


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: steps and values by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def write_steps(log: TrainingLog, first: int, last: int, loss: float) -> None:
    for step in range(first, last + 1):
        log.write(step, REPORT | {"task_loss": loss}, SPEED)


def test_every_number_is_read_back_in_its_group(tmp_path: Path) -> None:
    """All values are whole multiples of powers of two, so that 32 bits hold them exactly."""
    with TrainingLog(tmp_path / "new" / "run") as log:
        log.write(1, REPORT, SPEED)
        log.write(2, REPORT | {"task_loss": 0.5}, SPEED)
    shown = read_back(tmp_path / "new" / "run")
    assert {tag: points[0] for tag, points in shown.items()} == {
        tag: (1, value) for tag, value in ALL.items()
    }
    assert shown["loss/task"] == [(1, 1.5), (2, 0.5)]
    assert shown["loss/total"] == [(1, 1.9375), (2, 0.9375)]


def test_every_number_of_a_step_has_a_chart(tmp_path: Path) -> None:
    report = {field.name: 1.0 for field in fields(StepReport)}
    with TrainingLog(tmp_path) as log:
        log.write(1, report, {})
    tags = set(read_back(tmp_path)) - {"loss/total"}
    assert {tag.split("/")[0] for tag in tags} == {"loss", "accuracy", "optimizer"}
    assert len(tags) == len(report)


def test_what_is_none_is_left_out(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:
        log.write(1, REPORT | {"replay_accuracy": None, "alignment_loss": None}, {})
        log.write(2, {"replay_accuracy": None}, {})
    shown = read_back(tmp_path)
    assert "accuracy/replay" not in shown
    assert "loss/alignment" not in shown
    assert shown["loss/total"] == [(1, 1.8125)]


def test_a_resumed_run_hides_what_the_broken_one_had_after_its_checkpoint(tmp_path: Path) -> None:
    """Broken after step 9, gone on from step 6, broken after 8, gone on from 7."""
    broken = TrainingLog(tmp_path)
    write_steps(broken, 1, 9, 1.0)
    again = TrainingLog(tmp_path, first_step=6)
    write_steps(again, 7, 8, 2.0)
    with TrainingLog(tmp_path, first_step=7) as last:
        write_steps(last, 8, 8, 4.0)
    kept = [(step, 1.0) for step in range(1, 7)]
    assert read_back(tmp_path)["loss/task"] == [*kept, (7, 2.0), (8, 4.0)]
    broken.close()
    again.close()


def test_a_run_from_the_start_hides_all_of_the_one_before(tmp_path: Path) -> None:
    for loss, num_steps in ((1.0, 5), (2.0, 2)):
        with TrainingLog(tmp_path) as log:
            write_steps(log, 1, num_steps, loss)
    assert read_back(tmp_path)["loss/task"] == [(1, 2.0), (2, 2.0)]


def test_a_step_is_seen_at_once(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    write_steps(log, 1, 3, 1.0)
    assert len(read_back(tmp_path)["loss/task"]) == 3
    log.close()


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with TrainingLog(None) as log:
        log.write(1, REPORT, SPEED)
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


def test_a_folder_that_cannot_be_made_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with TrainingLog(tmp_path / "file" / "run") as log:
        write_steps(log, 1, 3, 1.0)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tasks", logging.WARNING)
    assert record.getMessage().startswith(
        f"TensorBoard: nothing more is written to {tmp_path / 'file' / 'run'} ("
    )


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """As on a full disk: the system refuses to write on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_is_told_once_and_what_was_written_stands(tmp_path: Path) -> None:
    told: list[str] = []
    log = TrainingLog(tmp_path, warn=told.append)
    write_steps(log, 1, 3, 1.0)
    (file,) = tmp_path.iterdir()
    with no_file_larger_than(file.stat().st_size + 100):
        write_steps(log, 4, 9, 1.0)
    write_steps(log, 10, 12, 1.0)  # there is room again, but a torn record in between
    log.close()
    assert len(told) == 1
    assert "File too large" in told[0]
    assert [step for step, _ in read_back(tmp_path)["loss/task"]] == [1, 2, 3]


def test_without_tensorboard_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    told: list[str] = []
    with TrainingLog(tmp_path, warn=told.append) as log:
        log.write(1, REPORT, SPEED)
    assert len(told) == 1


def test_the_module_loads_without_tensorboard() -> None:
    script = "import sys, tasks.tensorboard; assert 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def speeds(durations: list[float]) -> list[float]:
    """What is measured of steps of 8 images that take so many seconds."""
    clock = Clock()
    speed = Speedometer(clock)
    measured = []
    for seconds in durations:
        clock.now += seconds
        measured.append(speed.count(8))
    return measured


def test_speed_is_that_of_the_last_ten_seconds() -> None:
    """16 images a second; after ten seconds of 4 a second nothing of it is left.

    A set-up of 100 seconds, ten steps of half a second, then steps of two seconds: after the first
    of them 10 x 8 images in 6.5 seconds.
    """
    measured = speeds([100.0, *[0.5] * 9, *[2.0] * 6])
    assert measured[0] == 0.0
    assert measured[1:10] == [16.0] * 9
    assert measured[10] == pytest.approx(80 / 6.5)
    assert measured[14:] == [4.0, 4.0]


def test_steps_longer_than_ten_seconds_count_by_themselves() -> None:
    assert speeds([1.0, 16.0, 32.0, 16.0]) == [0.0, 0.5, 0.25, 0.5]


def test_steps_that_are_told_all_at_once_have_no_speed_yet() -> None:
    assert speeds([0.0, 0.0, 2.0]) == [0.0, 0.0, 8.0]


def test_peak_memory_of_a_process_is_what_the_system_says() -> None:
    held = torch.ones(2**23)  # 32 MiB, so that the peak is not from before this test's start
    peak = peak_memory_bytes(torch.device("cpu"))
    status = Path("/proc/self/status").read_text()
    (high_water_kib,) = (line.split()[1] for line in status.splitlines() if "VmHWM" in line)
    # Not much less; it may be more, for a process inherits the peak of the one that started it.
    assert 0.98 * 1024 <= peak / int(high_water_kib) < 50 * 1024
    assert peak > held.nbytes


def test_peak_memory_of_a_gpu_is_what_torch_took(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {device: 2**30}.__getitem__)
    assert peak_memory_bytes(device) == 2**30
