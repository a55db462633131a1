"""Whether a run's process lives, by the heartbeats that the server has received of it, and why a run waits for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

ACTIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)
"""States of a run that has not ended and is not being cancelled."""
HEARTBEAT = timedelta(seconds=30)
"""Between two signs of life of a run: PREFECT_FLOWS_HEARTBEAT_FREQUENCY on every worker."""
SILENCE = 4 * HEARTBEAT
"""A run that the server did not hear of for so long has no process any more."""


@dataclass
class Watch:
    """Since when the server answers without a gap. Nobody's heart beats for a server that slept, or with one who sleeps himself.

    `gap`: the longest time between two answers that is none.
    """

    gap: timedelta = SILENCE / 2
    since: datetime | None = None
    last: datetime | None = None

    def answered(self, now: datetime) -> datetime:
        """Note an answer of the server; returns since when it has given them."""
        if self.since is None or self.last is None or now - self.last > self.gap:
            self.since = now
        self.last = now
        return self.since


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
    """Whether the process of a run that is said to have crashed goes on sending heartbeats."""
    if run.state is None or run.state.type != StateType.CRASHED:
        return False
    beat = last_heartbeat(client, run.id)
    return beat is not None and beat > max(run.state.timestamp, datetime.now(UTC) - 3 * HEARTBEAT)


def declare_dead(client: SyncPrefectClient, watch: Watch, tag: str) -> list[FlowRun]:
    """Say of our running runs without a process that they crashed, and return them.

    Time counts from the beginning of the `watch`: after a sleep each has as long to be heard of as ever.
    """
    running = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    found = client.read_flow_runs(flow_run_filter=running, limit=200)
    since = watch.answered(datetime.now(UTC))
    silent = [run for run in found if is_silent(client, run, since)]
    for run in silent:
        client.set_flow_run_state(
            run.id, Crashed(message="No heartbeat for two minutes; its worker, host or process is gone.")
        )
    return silent


def is_silent(client: SyncPrefectClient, run: FlowRun, since: datetime) -> bool:
    """Whether nothing was heard of a running run for too long, since it began and the server listens.

    Of one that never sent a heartbeat nobody can say: its worker has them turned off.
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
    workers: Sequence[object] = [
        worker for worker in client.read_workers_for_work_pool(pool.name) if worker.status == "ONLINE"
    ]
    return "" if workers else f"no worker of the work pool {pool.name} is online: start one (README)"
