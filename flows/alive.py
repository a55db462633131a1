"""Whether a run's process is alive, by the heartbeats that the server received from it, and why a run waits to start."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

ACTIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)
"""States of a run that has not ended and is not being cancelled."""
TAG = "fabrating"
"""Of the runs of our deployments."""
HEARTBEAT = timedelta(seconds=30)
"""Between two signs of life of a run: PREFECT_FLOWS_HEARTBEAT_FREQUENCY on every worker."""
SILENCE = 4 * HEARTBEAT
"""A run that the server has not heard from for this long has no process any more."""


@dataclass
class Watch:
    """Since when the server has answered without a gap. While it or this machine sleeps, no heartbeat arrives.

    `gap`: a longer time between two answers starts the watch anew.
    """

    gap: timedelta = SILENCE / 2
    since: datetime | None = None
    last: datetime | None = None

    def answered(self, now: datetime) -> datetime:
        """Note an answer of the server; returns since when it has answered."""
        if self.since is None or self.last is None or now - self.last > self.gap:
            self.since = now
        self.last = now
        return self.since


def in_state(*types: StateType) -> FlowRunFilterState:
    """Filter by the type of a run's state."""
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=[*types]))


def ours(*types: StateType, **also: Any) -> FlowRunFilter:
    """Filter for our runs whose state is of one of these types; `also`: other fields of the filter."""
    return FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG]), state=in_state(*types), **also)


def below(runs: Sequence[FlowRun], *types: StateType) -> FlowRunFilter:
    """Filter for the children of these runs whose state is of one of these types."""
    parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in runs])
    return FlowRunFilter(parent_flow_run_id=parents, state=in_state(*types))


def last_heartbeat(client: SyncPrefectClient, run: UUID) -> datetime | None:
    """When the server last received a heartbeat of a run, by the server's clock: those of hosts differ."""
    wanted = {
        "occurred": {"until": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
        "order": "DESC",
    }
    found = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1}).json()["events"]
    return datetime.fromisoformat(found[0]["received"]) if found else None


def lives(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether the process of a run that was declared crashed still sends heartbeats."""
    if run.state is None or run.state.type != StateType.CRASHED:
        return False
    beat = last_heartbeat(client, run.id)
    return beat is not None and beat > max(run.state.timestamp, datetime.now(UTC) - 3 * HEARTBEAT)


def declare_dead(client: SyncPrefectClient, watch: Watch) -> list[FlowRun]:
    """Mark our running runs without a process as crashed, and return them.

    Time counts from the start of the `watch`, so after a sleep each run again has the full time to send a heartbeat.
    """
    found = client.read_flow_runs(flow_run_filter=ours(StateType.RUNNING), limit=200)
    since = watch.answered(datetime.now(UTC))
    silent = [run for run in found if is_silent(client, run, since)]
    for run in silent:
        client.set_flow_run_state(
            run.id, Crashed(message="No heartbeat for two minutes; its worker, host or process is gone.")
        )
    return silent


def is_silent(client: SyncPrefectClient, run: FlowRun, since: datetime) -> bool:
    """Whether a running run has been silent for too long, counted from when it began and the server has been listening (`since`).

    Nothing is known of one that never sent a heartbeat: its worker has them turned off.
    """
    now = datetime.now(UTC)
    assert run.state is not None
    if now - max(since, run.state.timestamp) < SILENCE:
        return False
    beat = last_heartbeat(client, run.id)
    return beat is not None and now - beat >= SILENCE


def why_waiting(client: SyncPrefectClient, run: FlowRun) -> str:
    """What a person has to do before a scheduled run can start, "" if it is only not its turn."""
    if not run.work_pool_name:
        return "its work pool was deleted: `fabrating up`, or `fabrating deploy` for a server elsewhere, makes it again"
    try:
        pool = client.read_work_pool(run.work_pool_name)
    except ObjectNotFound:
        return ""  # it is being made again
    if pool.is_paused:
        return f"the work pool {pool.name} is paused: prefect work-pool resume {pool.name}"
    if any(worker.status == "ONLINE" for worker in client.read_workers_for_work_pool(pool.name)):
        return ""
    return f"no worker of the work pool {pool.name} is online: start one (README)"
