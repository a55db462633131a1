"""Restarts runs that ended badly: the same run with the same parameters, from the last complete artifact.

It is a scheduled flow, because Prefect's automations cannot limit attempts and may fire more than once an event.
"""

from datetime import UTC, datetime, timedelta

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
"""A run that failed longer ago than this stays as it is: nobody expects it to start again."""
FIRST_DELAY = timedelta(minutes=1)
PERMANENT = ("InputError", "DamagedError", "ChangedError", "Validation of flow parameters failed")
"""Marks in the state's message of a run that would only fail again until a person changes something. Not DeniedError: a
credential is renewed outside the run, whose next attempt reads it again. But ChangedError: on other data the arms would no
longer be matched, so a person decides."""


@flow(name="maintenance", flow_run_name="reaper")
def reaper(attempts: int = 3, delay_seconds: float = FIRST_DELAY.total_seconds()) -> dict[str, list[str]]:
    """Restart failed and crashed runs, each at most `attempts` times, with a delay that doubles.

    Only our runs (by tag) that no other run waits for: a parent restarts its children itself. Runs that a person cancelled
    are left alone, and so are runs whose parameters or data a person has to change.

    Args:
        attempts: How often a run is restarted before it is left alone.
        delay_seconds: Delay between the end of a run and its first restart; it doubles each time.
    """
    log = get_run_logger()
    with get_client(sync_client=True) as client:
        found = [run for run in failed_runs(client, datetime.now(UTC)) if not is_permanent(run)]
        again = [run for run in found if run.run_count <= attempts]
        for run in again:
            start = due(run, datetime.now(UTC), timedelta(seconds=delay_seconds))
            client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=start), force=True)
            log.info(
                "%s was %s: attempt %d starts at %s", run.name, run.state_name, run.run_count + 1, f"{start:%H:%M:%S}"
            )
    given_up = [run.name for run in found if run.run_count > attempts]
    if given_up:
        log.warning("Failed more than %d times and left alone: %s", attempts, ", ".join(given_up))
    return {"set going": [run.name for run in again], "given up": given_up}


def failed_runs(client: SyncPrefectClient, now: datetime) -> list[FlowRun]:
    """Our failed and crashed runs of the last day that have no parent, oldest first."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),  # a worker must be able to start it again
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=now - FORGOTTEN),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=200)


def is_permanent(run: FlowRun) -> bool:
    """Whether the run would fail again for the same reason."""
    message = (run.state.message if run.state else None) or ""
    return run.state_type == StateType.FAILED and any(mark in message for mark in PERMANENT)


def due(run: FlowRun, now: datetime, delay: timedelta = FIRST_DELAY) -> datetime:
    """When the next attempt starts: one, two, four ... times `delay` after the end of the last one, not before now."""
    ended: datetime = run.end_time or now
    next_start: datetime = ended + delay * 2 ** max(0, run.run_count - 1)
    return max(now, next_start)
