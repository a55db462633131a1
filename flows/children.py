"""Runs of other deployments that a flow waits for: visible below it, found again by a retried parent, cancelled with it."""

import contextvars
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast

import httpx
from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import AwaitingRetry, Cancelling

from flows.alive import lives, why_waiting
from tasks.spec import Arm, Draw, Pool, Questions, Texts, Training
from tasks.store.artifact import fingerprint

POLL_SECONDS = 2.0
SECONDS_IN_LINE = 30.0
"""How often a run that waits to start is asked why."""
MOST_PARAMETERS = 200_000
"""The most characters of arms that one child is given. A server accepts 512 KiB of parameters."""
NEVER_LEFT = threading.Event()
"""For a child that is waited for to its end."""


class ChildFailed(RuntimeError):
    """A child run did not complete: the message names it and its state."""


@dataclass(frozen=True)
class Child:
    """A run of `deployment` below the current one. `name` says what it makes, so a parent has one child a name and deployment."""

    deployment: str
    name: str
    parameters: Mapping[str, Any]


def preparation(arms: Mapping[str, Arm], data: Pool, train: Training, root: str) -> Child:
    """A child that prepares arms, {id: arm}. Other arms make another child, even if the first is the same."""
    (first, arm), *others = arms.items()
    name = f"{first}-and-{len(others)}-more-{fingerprint(*arms)}" if others else first
    parameters: dict[str, Any] = {"arm": arm, "data": data, "train": train, "root": root}
    return Child("prepare/prepare", name, parameters | ({"more": [more for _, more in others]} if others else {}))


def preparations(arms: Mapping[str, Arm], data: Pool, train: Training, root: str) -> list[Child]:
    """A child that prepares all of the arms, or several of them where one would have more parameters than a server takes."""
    batches: list[dict[str, Arm]] = []
    size = 0
    for id, arm in arms.items():
        needed = len(arm.model_dump_json())
        if not batches or size + needed > MOST_PARAMETERS:
            batches, size = [*batches, {}], 0
        batches[-1][id] = arm
        size += needed
    return [preparation(batch, data, train, root) for batch in batches]


def training(
    run_id: str,
    arm_id: str,
    train: Training,
    seed: int,
    root: str,
    held: Sequence[Draw] = (),
    comparison: str | None = None,
    name: str | None = None,
) -> Child:
    """A child that makes the run `run_id`, which a person named `name`, on the same hardware as the other runs of a `comparison`."""
    parameters: dict[str, Any] = {"arm": arm_id, "train": train, "seed": seed, "root": root}
    parameters |= {"held": list(held)} if held else {}
    parameters |= {"name": name} if name else {}
    return Child("train/train", run_id, parameters | ({"comparison": comparison} if comparison else {}))


def scoring(run_id: str, texts: Sequence[Texts], core: bool, root: str, questions: Sequence[Questions] = ()) -> Child:
    """A child that scores the run `run_id` on texts from elsewhere, on questions and on CORE."""
    parameters: dict[str, Any] = {"run": run_id, "texts": list(texts), "core": core, "root": root}
    return Child("score/score", run_id, parameters | ({"questions": list(questions)} if questions else {}))


def run_children(children: Sequence[Child], pages: dict[str, str] | None = None) -> None:
    """Run children side by side. The first error is raised when all have ended. `pages`: as of `run_child`.

    An exception from outside, such as a cancellation, is raised at once, without waiting for the children.
    """
    if not children:
        return
    left = threading.Event()
    with ThreadPoolExecutor(len(children)) as pool:
        try:
            started = [pool.submit(contextvars.copy_context().run, run_child, child, pages, left) for child in children]
            wait(started)
        finally:
            left.set()
    for child in started:
        child.result()


def run_child(child: Child, pages: dict[str, str] | None = None, left: threading.Event = NEVER_LEFT) -> FlowRun:
    """Run a child and wait for its end; the address of its page is logged, and put into `pages` under its name.

    A retried parent attaches to the child of its earlier attempt: it waits if that still runs, and restarts it
    if it has ended. (Even a completed one: what it made must be gone or damaged since, or the parent would not ask for it.)
    Raises ChildFailed when the child ends in any state but Completed, and once nobody waits for it (`left`). If a person cancelled
    the child, the reaper leaves the parent alone too.
    """
    started = run_deployment(
        child.deployment,
        parameters=dict(child.parameters),
        flow_run_name=child.name,
        idempotency_key=f"{runtime.flow_run.id}:{child.deployment.split('/')[0]}:{child.name}",
        tags=list(runtime.flow_run.tags or []),
        timeout=0,
    )
    run = cast("FlowRun", started)  # a coroutine only where the caller is one
    if (ui := get_current_settings().ui_url) is not None:
        page = f"{ui}/runs/flow-run/{run.id}"
        get_run_logger().info("%s: %s", child.name, page)
        if pages is not None:
            pages[child.name] = page
    with get_client(sync_client=True) as client:
        if run.state is not None and run.state.is_final():
            while lives(client, run):  # it was declared crashed by mistake: two at once would be in each other's way
                _pause(run.name, left)
                run = client.read_flow_run(run.id)
            get_run_logger().info("%s was %s: starting it again", child.name, run.state.name if run.state else "new")
            client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        run = _wait(client, run, left)
    if run.state is None or not run.state.is_completed():
        reason = (run.state.message if run.state else None) or "see its logs"
        raise ChildFailed(f"{child.deployment} ({child.name}) is {run.state_name}: {reason}")
    return run


def cancel_children(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Flow hook `on_cancellation`: cancel the children that have not ended. Prefect passes its arguments by name."""
    with get_client(sync_client=True) as client:
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]))
        for child in client.read_flow_runs(flow_run_filter=below):
            if child.state is None or not child.state.is_final():
                client.set_flow_run_state(child.id, Cancelling(message=f"{flow_run.name} was cancelled"), force=True)


def _wait(client: SyncPrefectClient, run: FlowRun, left: threading.Event) -> FlowRun:
    """Poll until the run has ended, and wait out a server (or its database) that is down for a while."""
    away, reason, asked = False, "", time.monotonic()
    while True:
        try:
            found = client.read_flow_run(run.id)
            if found.state is not None and found.state.is_scheduled() and time.monotonic() - asked > SECONDS_IN_LINE:
                asked, before, reason = time.monotonic(), reason, why_waiting(client, found)
                if reason not in ("", before):
                    get_run_logger().warning("%s waits: %s", found.name, reason)
        except ObjectNotFound as error:
            raise ChildFailed(f"The run {run.name} was deleted: run it again") from error
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            if not away:
                get_run_logger().warning("The Prefect server does not answer: waiting for it")
            away = True
        else:
            away = False
            if found.state is not None and found.state.is_final():
                return found
        _pause(run.name, left)


def _pause(child: str, left: threading.Event) -> None:
    if left.wait(POLL_SECONDS):
        raise ChildFailed(f"Nobody waits for {child} any more")
