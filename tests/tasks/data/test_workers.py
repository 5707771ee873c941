"""How many processes decode beside a training process."""

import os

import pytest

from tasks.data.workers import default_workers


@pytest.mark.parametrize(
    ("num_cpus", "processes", "expected"),
    [(1, 1, 1), (2, 1, 1), (4, 1, 3), (16, 1, 8), (16, 4, 3), (16, 8, 1), (4, 8, 1)],
)
def test_default_workers_leave_each_process_a_processor(
    monkeypatch: pytest.MonkeyPatch, num_cpus: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(num_cpus)))
    assert default_workers(processes) == expected
