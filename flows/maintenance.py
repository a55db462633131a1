"""Restarts runs that ended badly: the same run with the same parameters, from the last complete artifact.

Not an automation, because Prefect's cannot limit attempts and may fire more than once an event. `fabrating maintain` looks every
half minute and runs this flow when there is something to restart.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterParentTaskRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry, Cancelling
from pydantic import Field

from flows.alive import ACTIVE, Watch, below, lives, ours

ENDS = (StateType.FAILED, StateType.CRASHED)
CANCELS = (StateType.CANCELLING, StateType.CANCELLED)
FORGOTTEN = timedelta(days=1)
"""A run that failed longer ago stays as it is: nobody expects it to start again."""
FIRST_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(minutes=15)
PERMANENT = (
    *("InputError", "NoAttentionError", "StrangerError", "DamagedError", "ChangedError"),
    *("ValidationError", "Validation of flow parameters failed", "Validation failed"),
)
"""Marks in the state's message of a run that would only fail again until a person changes something: names of errors, subclasses
too, because a message has only the name. DeniedError is not among them: a credential is renewed outside the run, and its next attempt
reads it again. ChangedError is: on other data the arms would no longer be matched, so a person decides."""

OURS = "Set going again by the reaper"
"""Message of the state that starts a run again."""
START = timedelta(minutes=5)
"""A run that a worker took this long ago and that has not begun was lost with it: the slowest start takes a minute or two."""
BUSY = ("BusyError", "SupersededError")
"""Marks of an attempt that found what it needs in use: it did nothing, and does not count as failed."""
ALIVE = "BusyError: The run "
"""Mark of an attempt that found its own run alive: the one before it was declared crashed by mistake."""


@flow(name="maintenance", flow_run_name="reaper")
def reaper(
    attempts: Annotated[int, Field(ge=0, le=1_000)] = 3,
    delay_seconds: Annotated[float, Field(ge=0, le=86_400)] = FIRST_DELAY.total_seconds(),
) -> dict[str, list[str]]:
    """Restart failed and crashed runs, each at most `attempts` times, with a delay that doubles.

    Only our runs (by tag) that no other run waits for: a parent restarts its children itself. Left alone is a run that a
    person cancelled, or a part of it, and one whose parameters or data a person has to change.

    Args:
        attempts: How often a run is restarted before it is left alone.
        delay_seconds: Delay between the end of a run and its first restart; it doubles each time.
    """
    log = get_run_logger()
    with get_client(sync_client=True) as client:
        restarts, given_up = ended_badly(client, attempts, timedelta(seconds=delay_seconds))
        for run, start in restarts:
            client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=start, message=OURS), force=True)
            log.info("%s was %s: it starts again at %s", run.name, run.state_name, f"{start:%H:%M:%S}")
    names = [run.name for run in given_up]
    if names:
        log.warning("Failed more than %d times and left alone: %s", attempts, ", ".join(names))
    return {"set going": [run.name for run, _ in restarts], "given up": names}


def ended_badly(
    client: SyncPrefectClient, attempts: int, delay: timedelta
) -> tuple[list[tuple[FlowRun, datetime]], list[FlowRun]]:
    """(runs to restart, each with the time to start at; runs that failed more than `attempts` times)."""
    restarts, given_up = [], []
    for run in failed_runs(client, datetime.now(UTC)):
        if is_permanent(run) or lives(client, run):
            continue
        states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
        ends = [state for state in since_started(states) if state.type in ENDS]
        if failures(ends) > attempts:
            given_up.append(run)
        elif not cancelled(client, run, states):
            restarts.append((run, due(run, len(ends), datetime.now(UTC), delay)))
    return restarts, given_up


def failed_runs(client: SyncPrefectClient, now: datetime) -> list[FlowRun]:
    """Our failed and crashed runs of the last day that have no parent, oldest first."""
    wanted = ours(
        *ENDS,
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),  # a worker must be able to start it again
        end_time=FlowRunFilterEndTime(after_=now - FORGOTTEN),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=200)


def is_permanent(run: FlowRun) -> bool:
    """Whether the run would fail again for the same reason."""
    message = (run.state.message if run.state else None) or ""
    return run.state_type == StateType.FAILED and any(mark in message for mark in PERMANENT)


def since_started(states: Sequence[State]) -> Sequence[State]:
    """A run's states in order, from the last time that a person started it: the limit counts our restarts only."""
    by_hand = [
        at
        for at, state in enumerate(states)
        if state.type == StateType.SCHEDULED and state.name != "Late" and state.message != OURS
    ]
    return states[by_hand[-1] :] if by_hand else states


def failures(ends: Sequence[State]) -> int:
    """How many attempts failed, by their ends in order, those that never began included.

    One that found a GPU or its own run in use did not fail, nor did the one before it that was declared crashed while it ran on.
    """
    count, crashed = 0, False
    for state in ends:
        message = state.message or ""
        if any(mark in message for mark in BUSY):
            count -= crashed and ALIVE in message
            crashed = False
        else:
            count += 1
            crashed = state.type == StateType.CRASHED
    return count


def cancelled(client: SyncPrefectClient, run: FlowRun, states: Sequence[State]) -> bool:
    """Whether a person cancelled the run, which then crashed, or a child that it would start again.

    `states`: its states in order.
    """
    if any(state.type in CANCELS for state in states[-2:]):
        return True
    return bool(client.read_flow_runs(flow_run_filter=below([run], *CANCELS), limit=1))


def cancel_left_behind(client: SyncPrefectClient) -> list[FlowRun]:
    """Cancel what still runs below our runs that a person cancelled, and return it: a parent without a process cannot do so."""
    above = client.read_flow_runs(flow_run_filter=ours(*CANCELS), sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    if not above:
        return []
    found = client.read_flow_runs(flow_run_filter=below(above, *ACTIVE), limit=200)
    for run in found:
        client.set_flow_run_state(run.id, Cancelling(message="What waits for it was cancelled"))
    return found


def put_back(client: SyncPrefectClient, watch: Watch) -> list[FlowRun]:
    """Put our runs back in line that a worker had taken and never started, and return them: it was killed, or its host lost, in between.

    Nobody else would ever start them, and they would keep their place in a queue. Time counts from the start of the `watch`.
    """
    since = watch.answered(datetime.now(UTC))
    found = [
        run
        for run in client.read_flow_runs(flow_run_filter=ours(StateType.PENDING), limit=200)
        if run.state and datetime.now(UTC) - max(since, run.state.timestamp) >= START
    ]
    for run in found:
        client.set_flow_run_state(run.id, AwaitingRetry(message=OURS), force=True)
    return found


def due(run: FlowRun, ended: int, now: datetime, delay: timedelta = FIRST_DELAY) -> datetime:
    """When the next attempt starts after `ended` ones: one, two, four ... times `delay` after the end of the last, not before now.

    The wait grows to `LONGEST_DELAY`, or `delay` if that is longer.
    """
    wait: timedelta = min(delay * 2 ** min(ended - 1, 10), max(delay, LONGEST_DELAY))
    last: datetime = run.end_time or now
    return max(now, last + wait)
