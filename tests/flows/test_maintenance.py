"""Which ends of a run count as failed attempts."""

import pytest
from prefect.states import Crashed, Failed

from flows.maintenance import failures

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
