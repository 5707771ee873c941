"""The same sequence started twice at once, by two processes on one store."""

import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from prefect.settings import PREFECT_API_URL

from deployments.seaweed import Endpoint
from tasks.sequence import SequenceSettings
from tasks.store.address import open_store
from tests.faults.sequences import Undisturbed, assert_as_undisturbed, moved
from tests.worlds import ROOT

pytestmark = pytest.mark.timeout(600)
NUM_ROUNDS = {"folder": 2, "s3": 1}


class Scheduler:
    """A process that runs sequences as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, sequence: SequenceSettings, wait: float) -> None:
        assert self._process.stdin is not None
        asked = {"sequence": sequence.model_dump(mode="json"), "wait": wait}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@pytest.fixture(scope="module")
def schedulers(
    prefect_api: None, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Scheduler]]:
    log = tmp_path_factory.mktemp("schedulers") / "log"
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # other sums, other last digits
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        processes = []
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.scheduler"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(Scheduler(process))
        assert all(each.told() == {"ready": True} for each in processes), log.read_text()
        yield processes


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_both_end_well_and_every_output_is_committed_once(
    schedulers: list[Scheduler],
    undisturbed: Undisturbed,
    endpoint: Endpoint,
    tmp_path: Path,
    kind: str,
) -> None:
    """The second process starts a little later than the first, each round by another while."""
    dice = random.Random(kind)  # noqa: S311 - a test's dice
    for _ in range(NUM_ROUNDS[kind]):
        name = secrets.token_hex(4)
        url = str(tmp_path / name) if kind == "folder" else f"s3://{endpoint.bucket}/{name}"
        sequence = moved(undisturbed.sequence, url)
        for scheduler, wait in zip(schedulers, (0.0, dice.uniform(0, 1)), strict=True):
            scheduler.start(sequence, wait)
        told = [scheduler.told() for scheduler in schedulers]
        assert [each["error"] for each in told] == [None, None]
        assert {each["computed"] + each["found"] for each in told} == {7}
        assert sum(each["computed"] for each in told) >= 7, "somebody made each"
        assert_as_undisturbed(open_store(url), undisturbed.manifests)
