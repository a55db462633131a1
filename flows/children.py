"""Runs of other deployments that a flow waits for: visible below it, found again by a retried parent, cancelled with it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.settings import get_current_settings
from prefect.states import AwaitingRetry, Cancelling

from flows.alive import ACTIVE, below, lives, why_waiting
from tasks.spec import Arm, Draw, Pool, Questions, Texts, Training
from tasks.store.artifact import fingerprint

POLL_SECONDS = 1.0
SECONDS_IN_LINE = 30.0
"""How often a run that waits to start is asked why."""
MOST_PARAMETERS = 200_000
"""The most characters of arms that one child is given. A server accepts 512 KiB of parameters."""
MOST_READ = 200
"""The most runs that a server returns at once."""


class ChildFailed(RuntimeError):
    """A child run did not complete: the message names it and its state."""


@dataclass(frozen=True)
class Child:
    """A run of `deployment` below the current one. `name` says what it makes, so a parent has one child a name and deployment."""

    deployment: str
    name: str
    parameters: Mapping[str, Any]


@dataclass
class _Awaited:
    """A child and its run, as the server last told of it."""

    child: Child
    run: FlowRun
    again: bool
    """Whether the run had ended when it was asked for, so that it is to start again."""
    ended: bool = False
    deleted: bool = False

    def look(self, client: SyncPrefectClient, run: FlowRun | None) -> None:
        """Take over what the server tells now, None if the run was deleted, and start the run again if that is due."""
        if run is None:
            self.ended = self.deleted = True
            return
        self.run = run
        if not self.again:
            self.ended = _final(run)
        elif _final(run) and not lives(client, run):
            # one that lives was declared crashed by mistake: two at once would be in each other's way
            get_run_logger().info("%s was %s: starting it again", self.child.name, run.state_name)
            client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
            self.again = False

    def require_completed(self) -> None:
        """Raise ChildFailed unless the run completed."""
        if self.deleted:
            raise ChildFailed(f"The run {self.child.name} was deleted: run it again")
        state = self.run.state
        if state is None or not state.is_completed():
            reason = (state.message if state else None) or "see its logs"
            if state is not None and state.is_cancelled():
                reason = "run this again, or Retry, and it goes on from there"
            raise ChildFailed(f"{self.child.deployment} ({self.child.name}) is {self.run.state_name}: {reason}")


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
    """Run children side by side and wait for all to end. The addresses of their pages are logged, and put into `pages` under their names.

    A retried parent attaches to the children of its earlier attempt: it waits for one that still runs, and restarts one that
    has ended. (Even a completed one: what it made must be gone or damaged since, or the parent would not ask for it.)
    Raises ChildFailed for the first that ended in any state but Completed, once all have ended. If a person cancelled it, the
    reaper leaves the parent alone too.
    """
    with get_client(sync_client=True) as client:
        runs = [_ask(child, pages) for child in children]
        awaited = [_Awaited(child, run, again=_final(run)) for child, run in zip(children, runs, strict=True)]
        _wait(client, awaited)
    for each in awaited:
        each.require_completed()


def _ask(child: Child, pages: dict[str, str] | None) -> FlowRun:
    """The child's run, a new one or that of an earlier attempt.

    Called for one child after the other: side by side, requests lock one another out of the SQLite of a server that `fabrating up` did not
    start, and Prefect's client repeats a refused one only after up to a minute (16 children: after 15 to 33 s instead of 1 to 7).
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
    return run


def _final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def cancel_children(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Flow hook `on_cancellation`: cancel the children that have not ended. Prefect passes its arguments by name."""
    with get_client(sync_client=True) as client:
        while found := client.read_flow_runs(flow_run_filter=below([flow_run], *ACTIVE), limit=MOST_READ):
            for child in found:
                client.set_flow_run_state(child.id, Cancelling(message=f"{flow_run.name} was cancelled"), force=True)


def _wait(client: SyncPrefectClient, awaited: Sequence[_Awaited]) -> None:
    """Poll until all have ended, and wait out a server (or its database) that is down for a while."""
    away, asked, told = False, time.monotonic(), dict[str | None, str]()
    while left := [each for each in awaited if not each.ended]:
        try:
            found = _read(client, [each.run.id for each in left])
            for each in left:
                each.look(client, found.get(each.run.id))
            if time.monotonic() - asked > SECONDS_IN_LINE:
                asked = time.monotonic()
                _say_why(client, [each.run for each in left], told)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            if not away:
                get_run_logger().warning("The Prefect server does not answer: waiting for it")
            away = True
        else:
            away = False
        if not all(each.ended for each in left):
            time.sleep(POLL_SECONDS)


def _read(client: SyncPrefectClient, ids: Sequence[UUID]) -> dict[UUID, FlowRun]:
    """Flow runs by id; those that were deleted are missing."""
    found: dict[UUID, FlowRun] = {}
    for start in range(0, len(ids), MOST_READ):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids[start : start + MOST_READ])))
        found |= {run.id: run for run in client.read_flow_runs(flow_run_filter=wanted, limit=MOST_READ)}
    return found


def _say_why(client: SyncPrefectClient, runs: Sequence[FlowRun], told: dict[str | None, str]) -> None:
    """Log what a person has to do before runs can start, once for each work pool: `told` has what was said last."""
    waiting = {run.work_pool_name: run for run in runs if run.state is not None and run.state.is_scheduled()}
    for pool, run in waiting.items():
        reason = why_waiting(client, run)
        if reason not in ("", told.get(pool)):
            get_run_logger().warning("%s waits: %s", run.name, reason)
        told[pool] = reason
