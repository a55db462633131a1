"""Runs of other deployments that a flow waits for: visible below it, found again by a retried parent, cancelled with it."""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import AwaitingRetry, Cancelling, State

POLL_SECONDS = 2.0


class ChildFailed(RuntimeError):
    """A child run did not complete: the message names it and its state."""


def run_child(deployment: str, step: str, parameters: Mapping[str, Any], name: str) -> FlowRun:
    """Run `deployment` below the current flow run and wait for its end.

    A retried parent attaches to the child of its earlier attempt: it waits when that still runs, and sets it going again
    when that has ended. (A child that has completed, too: what it made must be gone or damaged since, or the parent would
    not ask for it.) Raises ChildFailed when the child ends in any state but Completed.
    """
    child = run_deployment(
        deployment,
        parameters=dict(parameters),
        flow_run_name=name,
        idempotency_key=f"{runtime.flow_run.id}:{step}",
        tags=list(runtime.flow_run.tags or []),
        timeout=0,
    )
    with get_client(sync_client=True) as client:
        if child.state is not None and child.state.is_final():
            get_run_logger().info("%s was %s: it goes on", name, child.state.name)
            client.set_flow_run_state(child.id, AwaitingRetry(), force=True)
        child = _wait(client, child.id)
    if not child.state.is_completed():
        raise ChildFailed(f"{deployment} ({name}) is {child.state.name}: {child.state.message or 'see its logs'}")
    return child


def cancel_children(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Flow hook `on_cancellation`: cancelling a parent cancels the children that have not ended.

    Prefect hands these three over by name.
    """
    with get_client(sync_client=True) as client:
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]))
        for child in client.read_flow_runs(flow_run_filter=below):
            if child.state is None or not child.state.is_final():
                client.set_flow_run_state(child.id, Cancelling(message=f"{flow_run.name} was cancelled"), force=True)


def _wait(client: Any, run: UUID) -> FlowRun:
    """Poll until the run has ended. A server (or its database) that is away for a while is waited for."""
    away = False
    while True:
        try:
            found = client.read_flow_run(run)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            if not away:
                get_run_logger().warning("The Prefect server cannot be reached: waiting for it")
            away = True
        else:
            away = False
            if found.state is not None and found.state.is_final():
                return found
        time.sleep(POLL_SECONDS)
