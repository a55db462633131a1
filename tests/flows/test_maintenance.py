"""Which ends of a run count as failed attempts, and against which start."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from prefect.states import AwaitingRetry, Crashed, Failed, Scheduled

from flows.alive import Watch
from flows.maintenance import OURS, PERMANENT, failures, since_started
from tasks.hosts.wheel import CHECKOUT

GONE = Crashed(message="No heartbeat for two minutes; its worker, host or process is gone.")
NEVER_STARTED = Crashed(message="Flow run could not be started: no such interpreter")
RAISED = Failed(message="Flow run encountered an exception: ConnectionError: reset")
ALIVE = Failed(message="Flow run encountered an exception: BusyError: The run r is in use by process 7 on gpu1")
GPU = Failed(message="Flow run encountered an exception: BusyError: The GPU 0 is in use by run q (process 8 on gpu1)")
TAKEN = Failed(message="Flow run encountered an exception: SupersededError: The run r was taken over by process 9")


@pytest.mark.parametrize(
    ("ends", "count"),
    [
        ([RAISED, GONE, NEVER_STARTED], 3),
        ([GONE, ALIVE, ALIVE, ALIVE], 0),
        ([RAISED, GONE, ALIVE, GONE], 2),
        ([GONE, GPU, GPU], 1),
        ([RAISED, TAKEN], 1),
    ],
    ids=["each counts once", "a live run", "a live run that is lost later", "a GPU in use", "taken over"],
)
def test_what_counts_as_a_failed_attempt(ends: list, count: int) -> None:
    assert failures(ends) == count


def test_every_error_that_a_person_must_mend_is_known_by_its_name() -> None:
    code = "\n".join(path.read_text() for room in ("tasks", "flows") for path in (CHECKOUT / room).rglob("*.py"))
    bases = dict(re.findall(r"^class (\w+)\(([\w.]+)\):", code, re.MULTILINE))
    marked = {"InputError", "DamagedError", "ChangedError"}
    while more := {name for name, base in bases.items() if base in marked} - marked:
        marked |= more
    assert marked - {"DeniedError"} == marked & set(PERMANENT)


def test_the_limit_counts_our_own_restarts_since_a_person_started_the_run() -> None:
    ours = AwaitingRetry(message=OURS)
    late = Scheduled(name="Late")
    states = [Scheduled(), GONE, ours, late, GONE, ours, GONE]
    assert failures([state for state in since_started(states) if state.is_final()]) == 3
    states += [AwaitingRetry(message="Retry from the UI"), late, RAISED]
    assert failures([state for state in since_started(states) if state.is_final()]) == 1


def test_a_watch_begins_anew_after_a_sleep() -> None:
    began, step, watch = datetime(2026, 1, 1, tzinfo=UTC), timedelta(seconds=31), Watch()
    assert [watch.answered(began + at * step) for at in range(5)] == [began] * 5
    woke = began + 4 * step + timedelta(seconds=150)
    assert watch.answered(woke) == watch.answered(woke + step) == woke
