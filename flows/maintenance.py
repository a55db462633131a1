"""Runs that ended badly go on by themselves: the same run, the same parameters, from the last complete artifact.

A scheduled flow, because Prefect's automations know no limit of attempts and can fire more than once for an event.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry

TAG = "fabrating"
FORGOTTEN = timedelta(days=1)
"""A run that failed longer ago than this is history: nobody expects it to start again."""
FIRST_DELAY = timedelta(minutes=1)
PERMANENT = ("InputError", "DamagedError", "ChangedError", "Validation of flow parameters failed")
"""What stands in the state's message of a run that would only fail again: a person has to change something. Not
DeniedError: a credential is renewed outside of the run, whose next attempt reads it anew. But ChangedError: on other data the
arms would no longer be matched, so a person decides."""


@flow(name="maintenance", flow_run_name="reaper")
def reaper(attempts: int = 3, delay_seconds: float = FIRST_DELAY.total_seconds()) -> dict[str, list[str]]:
    """Set failed and crashed runs going again, each at most `attempts` times, with a delay that doubles.

    Only runs of ours (by tag) that no other run waits for: a parent attaches to its children again by itself. Left alone are
    runs that a person cancelled, and runs whose parameters or data a person has to change.

    Args:
        attempts: How often one run is set going again before it stays as it is.
        delay_seconds: How long after its end a run is set going again for the first time; then twice as long, and so on.
    """
    log = get_run_logger()
    with get_client(sync_client=True) as client:
        found = [run for run in failed_runs(client, datetime.now(UTC)) if not is_permanent(run)]
        again = [run for run in found if run.run_count <= attempts]
        for run in again:
            start = due(run, datetime.now(UTC), timedelta(seconds=delay_seconds))
            client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=start), force=True)
            log.info(
                "%s was %s: attempt %d starts at %s", run.name, run.state.name, run.run_count + 1, f"{start:%H:%M:%S}"
            )
    given_up = [run.name for run in found if run.run_count > attempts]
    if given_up:
        log.warning("Failed more than %d times and left alone: %s", attempts, ", ".join(given_up))
    return {"set going": [run.name for run in again], "given up": given_up}


def failed_runs(client: SyncPrefectClient, now: datetime) -> list[FlowRun]:
    """Failed and crashed runs of ours of the last day that have no parent, the oldest first."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),  # a worker must be able to start it again
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=now - FORGOTTEN),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=200)


def is_permanent(run: FlowRun) -> bool:
    """Whether the run failed for a reason that will be there again."""
    message = run.state.message or ""
    return run.state.type == StateType.FAILED and any(mark in message for mark in PERMANENT)


def due(run: FlowRun, now: datetime, delay: timedelta = FIRST_DELAY) -> datetime:
    """When the next attempt starts: one, two, four ... times `delay` after the end of the last one, not before now."""
    ended: Any = run.end_time or now
    return max(now, ended + delay * 2 ** max(0, run.run_count - 1))
