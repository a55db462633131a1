"""Whether a person has cancelled the run that works here, asked of the server.

A worker ends the processes of a run that is cancelled. One that was restarted in between, or whose polling was cut off by an
outage, knows nothing of it: the training would go on, hold its GPU, and nobody could stop it. So a training asks by itself.
"""

import contextlib
import threading
from collections.abc import Iterator

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

from tasks.progress import Stop, never

SECONDS = 10.0
"""Between two questions."""


def cancelled(flow_run: str | None = None) -> bool:
    """Whether the flow run (default: the one that this is called in) is being cancelled, or was.

    False outside of a flow run, and when the server does not answer.
    """
    flow_run = flow_run or runtime.flow_run.id
    if flow_run is None:
        return False
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run).state
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
    return False


@contextlib.contextmanager
def watched() -> Iterator[Stop]:
    """Ask every ten seconds, on a thread: the yielded function says whether the run was cancelled. Called in a flow or task."""
    flow_run = runtime.flow_run.id
    if flow_run is None:
        yield never
        return
    found, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not found.is_set() and not ended.wait(SECONDS):
            if cancelled(flow_run):
                found.set()

    threading.Thread(target=watch, name="cancellation", daemon=True).start()
    try:
        yield found.is_set
    finally:
        ended.set()
