"""Runs of stages on a work pool: sent, waited for, sent again when their worker is lost, stopped.

They are children of the run that sent them. A run of the parent that takes up where another was
broken off finds the children that are still at work and waits for those.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelling

from gift_core.errors import GiftError, SettingsError, StageLost, error_named
from tasks.progress import duration, run_logger

MAX_RUNS = 3
"""How often a stage is sent: once, and again when its worker was lost."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
CRASH_GRACE_SECONDS = 10.0
"""A run that somebody cancels is seen as crashed for a moment, as its process takes the signal."""
PATIENCE_SECONDS = 60.0
"""After so long without a worker the log says what the run waits for."""

_AT_WORK = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


@dataclass(frozen=True)
class PoolRun:
    """A run to send: its deployment, its name and parameters, and what its output goes by."""

    deployment: str
    name: str
    parameters: dict[str, Any]
    mark: str


def check_deployments(names: Sequence[str]) -> None:
    """SettingsError when one of them is not known to the server, before any work."""
    if get_current_settings().api.url is None:
        raise SettingsError(
            "execution.stages: pools needs a Prefect server with workers; set PREFECT_API_URL to "
            "its address, or set execution.stages to here"
        )
    with get_client(sync_client=True) as client:
        for name in names:
            try:
                client.read_deployment_by_name(name)
            except ObjectNotFound:
                raise SettingsError(
                    f"execution.stages: pools needs the deployment {name}, and the Prefect server "
                    f"at {client.api_url} has none; run `prefect deploy --all` there, or set "
                    "execution.stages to here"
                ) from None


def run_on_pool(asked: Sequence[PoolRun]) -> None:
    """Have runs on their pool, all at once, and wait until each has ended well.

    One that crashed (a worker lost, memory run out) is sent again, up to MAX_RUNS times in all; it
    goes on from its last checkpoint. Raises the error of the product that a run failed with, else
    StageLost. When this is left early, the other runs are cancelled, save when the parent will be
    run again by another worker: then they go on, and that one waits for them.
    """
    with get_client(sync_client=True) as client:
        client.hello()  # once connected, the client outlives a restart of the server
        waiting: list[_Sent] = []
        pause = FIRST_PAUSE_SECONDS
        try:
            for each in asked:
                waiting.append(_Sent(client, each))  # noqa: PERF401 - what was sent is kept
            while waiting:
                time.sleep(pause)
                pause = min(1.1 * pause, LONGEST_PAUSE_SECONDS)
                waiting = [each for each in waiting if not each.has_ended_well()]
        except BaseException as error:
            if isinstance(error, Exception) or not _will_be_resumed(client):
                _cancel(client, waiting)
            raise


class _Sent:
    """One of the runs, and how often it was sent."""

    def __init__(self, client: SyncPrefectClient, asked: PoolRun) -> None:
        self._client, self._asked = client, asked
        self._num_sent, self._since = 1, time.monotonic()
        self._crashed: float | None = None
        found = self._at_work()
        self.id = found.id if found else self._send()
        if found:
            run_logger().info("%s is at work already; it is waited for", asked.name)

    def has_ended_well(self) -> bool:
        """Look at it once; raises what `run_on_pool` raises."""
        run = self._client.read_flow_run(self.id)
        state = run.state
        if state is None or not state.is_final():
            self._say_what_it_waits_for(run)
            return False
        if state.is_completed():
            return True
        if not state.is_crashed():
            raise self._failure(state)
        now = time.monotonic()
        self._crashed = self._crashed or now
        if now - self._crashed < CRASH_GRACE_SECONDS:
            return False
        if self._num_sent >= MAX_RUNS:
            raise self._failure(state)
        run_logger().warning(
            "%s lost its worker (%s); it is sent again", self._asked.name, _words(state)
        )
        self._num_sent, self._since, self._crashed = self._num_sent + 1, now, None
        self.id = self._send()
        return False

    def _at_work(self) -> FlowRun | None:
        """The run that the parent sent before it was broken off itself."""
        parent = FlowRunContext.get()
        if parent is None or parent.flow_run is None:
            return None
        wanted = {
            "parent_flow_run_id": {"any_": [parent.flow_run.id]},
            "tags": {"all_": [self._asked.mark]},
            "state": {"type": {"any_": _AT_WORK}},
        }
        found = self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(wanted), limit=1
        )
        return found[0] if found else None

    def _send(self) -> UUID:
        asked = self._asked
        run = run_deployment(
            asked.deployment,
            parameters=asked.parameters,
            flow_run_name=asked.name,
            tags=[asked.mark],
            timeout=0,
        )
        return run.id

    def _say_what_it_waits_for(self, run: FlowRun) -> None:
        waited = time.monotonic() - self._since
        if run.state is None or not run.state.is_scheduled() or waited < PATIENCE_SECONDS:
            return
        self._since = float("inf")  # once is enough
        run_logger().warning(
            "%s waits for a worker of the pool %s since %s: %s",
            *(self._asked.name, run.work_pool_name, duration(waited)),
            "all may be busy, or none runs (`prefect worker start`)",
        )

    def _failure(self, state: State) -> GiftError:
        name, said = self._asked.name, _words(state)
        if state.is_failed():
            kind, _, sentence = said.rpartition("exception: ")[2].partition(": ")
            return error_named(kind, sentence) or StageLost(
                f"{name} failed on its worker ({said}); its log has the traceback"
            )
        if state.is_cancelled():
            return StageLost(f"{name} was cancelled; run it again: what was done is kept")
        return StageLost(
            f"{name} lost its worker {self._num_sent} times, last: {said}; look at the workers' "
            "logs and memory, then run it again: what was done is kept"
        )


def _words(state: State) -> str:
    return state.message or str(state.name)


def _will_be_resumed(client: SyncPrefectClient) -> bool:
    """Whether this run was broken off (its worker stops) rather than cancelled by somebody.

    Only runs of a deployment are taken up by another worker.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return False
    with suppress(httpx.HTTPError):
        state = client.read_flow_run(context.flow_run.id).state
        return state is not None and not (state.is_cancelling() or state.is_cancelled())
    return True


def _cancel(client: SyncPrefectClient, sent: Sequence[_Sent]) -> None:
    """Ask the workers to stop; one that cannot be told is named in the log."""
    for each in sent:
        try:
            client.set_flow_run_state(each.id, Cancelling(message="Its parent was stopped."))
        except Exception as error:  # the server may be gone, and the reason to stop matters more
            run_logger().warning("run %s was not told to stop: %s", each.id, error)
