"""`make demo`: the local stack, the sample, one `compare/demo` to its verdict, and where to look.

Ctrl-C cancels the run and ends every process of a stack that a demo started; a stack of `make up` stays.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from infra.local import lifecycle, stack
from infra.local.access import connected
from infra.local.deploy import PROJECT
from infra.local.publish import publish
from infra.local.sample_data import build_sample
from infra.local.stack import Say, Stack
from tasks.errors import InputError
from tasks.records.layout import REPORT, VERDICT, ArmFolder, PoolFolder, VerdictFolder
from tasks.records.verdict import Verdict
from tasks.store.root import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import FlowRun, State

DEPLOYMENT = "compare/demo"
POLL_SECONDS = 1.0


def run_demo(home: Path, say: Say, port: int = lifecycle.SERVER_PORT) -> dict[str, Any]:
    """Run the demo. Returns its verdict and where to look. Raises InputError when the run does not complete."""
    started = time.monotonic()
    before = stack.load(home)
    keep = before is not None and before.owner == "up" and lifecycle.running(before)
    with _stopped_on_signals(home, keep, say):
        with ThreadPoolExecutor(1) as background:
            sample = background.submit(build_sample, home)
            running = lifecycle.up(home, say, owner="demo", port=port)
            publish(running, sample.result(), say)
        found = _run(running, say)
        say(f"Finished in {time.monotonic() - started:.0f} s")
        return found


def _run(running: Stack, say: Say) -> dict[str, Any]:
    """Start `compare/demo`, say what it and its children do until it ends, and return where to look."""
    from prefect.client.orchestration import get_client

    with connected(running.environment), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        run = client.create_flow_run_from_deployment(deployment.id, name=deployment.parameters["name"])
        say(f"Running {DEPLOYMENT}: {running.page(run.id)}")
        shown: dict[UUID, str] = {}
        flow_name = cache(lambda flow: client.read_flow(flow).name)
        try:
            while True:
                run = client.read_flow_run(run.id)
                for each in [*_children(client, run.id), run]:
                    if each.state is not None and shown.get(each.id) != (now := _how_far(each.state)):
                        shown[each.id] = now
                        say(f"  {flow_name(each.flow_id)} {each.name}: {now}")
                if run.state is not None and run.state.is_final():
                    state = run.state
                    break
                if not running.alive("server"):
                    raise InputError(f"The Prefect server is gone: see {running.home / 'logs' / 'server.log'}.")
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            _cancel(client, run.id)
            raise
        if not state.is_completed():
            raise InputError(f"{DEPLOYMENT} is {state.name} ({state.message}): see {running.page(run.id)}.")
        if len(shown) == 1:
            say("It was complete already: arms, checkpoints and scores were reused, nothing was made again")
        return _where_to_look(running, run)


def _how_far(state: "State") -> str:
    """A state as a person reads it: a run that has to wait for another is called neither Late, Pending nor Submitting."""
    return "Waiting" if state.is_scheduled() or state.is_pending() else state.name or state.type.value


def _children(client: "SyncPrefectClient", run: UUID) -> "list[FlowRun]":
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    )


def _cancel(client: "SyncPrefectClient", run: UUID) -> None:
    from prefect.states import Cancelling

    with contextlib.suppress(Exception):  # the server may be on its way out; the processes are ended anyway
        client.set_flow_run_state(run, Cancelling(), force=True)


def _where_to_look(running: Stack, run: "FlowRun") -> dict[str, Any]:
    """The verdict of a finished comparison, with addresses, files and numbers."""
    given = run.parameters.get("root", DEFAULT_ROOT)
    root = Root(running.root if given == DEFAULT_ROOT else PROJECT / given)  # as its worker reads it
    found = [root.open(VerdictFolder(id).name) for id in VerdictFolder.all(root) if id.rpartition("-")[0] == run.name]
    made = max(found, key=lambda each: each.manifest.created)
    verdict = Verdict.read(made.path / VERDICT)
    read = {
        part: root.manifest(part).facts["bytes_read"]
        for part in (PoolFolder(verdict.pool).index, *(ArmFolder(arm.arm).text for arm in verdict.arms))
    }
    return {
        "ui": running.ui,
        "password in": str(running.password_file),
        "run": running.page(run.id),
        "bits per byte": {arm.label: arm.bpb_by_seed for arm in verdict.arms},
        "bytes read": read,
        "report": (made.path / REPORT).as_uri(),
        "stop the stack": "make down",
        "verdict": " ".join(verdict.sentences),
    }


@contextlib.contextmanager
def _stopped_on_signals(home: Path, keep: bool, say: Say) -> Iterator[None]:
    """End the stack when the demo is stopped from outside or fails to start it, unless it was there before.

    A second Ctrl-C while it is ended changes nothing: the processes go, whatever the impatience.
    """

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        if keep:
            say("Stopped; the stack of `make up` goes on (`make down` ends it)")
        else:
            say("Stopping all processes of the demo")
            lifecycle.down(home, say)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
