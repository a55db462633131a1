"""What every room's `steps.py` and every flow need of Prefect: a step as a task, its retries, progress and cancellation.

Besides flows, files named `steps.py` and the local stack, nothing imports Prefect. Outside a run everything here only
logs, so a task's function works as plain code.
"""

import contextlib
import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from prefect import get_run_logger, runtime, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext, get_run_context
from prefect.exceptions import MissingContextError
from prefect.tasks import exponential_backoff

from tasks.errors import ChangedError, DamagedError, InputError
from tasks.escaping import markdown
from tasks.progress import Evaluations, Progress, Stop, lasting, never

SECONDS_BETWEEN_UPDATES = 2.0
WINDOW = 60.0
"""Seconds over which a rate is averaged."""
SECONDS_BETWEEN_QUESTIONS = 10.0
"""How often a run asks the server whether it was cancelled."""

MISTAKES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, NotImplementedError)
NEVER_RETRIED = (InputError, DamagedError, ChangedError, *MISTAKES)


T = TypeVar("T")


class Sealed(Generic[T]):
    """A parameter that Prefect passes on untouched: it would search large arrays for futures, and try to copy connections."""

    def __init__(self, value: T):
        self.value = value


def retryable(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: retry what the network did, not what a person has to change."""
    try:
        state.result()
    except NEVER_RETRIED:
        return False
    except Exception:
        return True
    return False


RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": retryable,
    "persist_result": False,
}
"""Options of a task that reads from or writes to a store. Its result stays in memory: what it made lies under the root."""


def step(title: str, work: Callable[[Progress], T]) -> T:
    """Run `work(progress)` as a task named `title`, with retries, and show its progress. Called in a flow."""
    return _step(title, Sealed(work))


@task(name="step", task_run_name="{title}", **RETRIED)
def _step(title: str, work: Sealed[Callable[[Progress], T]]) -> T:
    with progress(title) as shown:
        return work.value(shown)


def key(*parts: str) -> str:
    """A Prefect artifact key from readable parts: lower case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def in_run() -> bool:
    """Whether this is called in a flow or task run, which can show things."""
    try:
        get_run_context()
    except MissingContextError:
        return False
    return True


def show_markdown(name: str, text: str, description: str) -> None:
    """Show Markdown on the run's page under an artifact key. Nothing outside a run, where it would belong to nobody.

    The text's parts are escaped by who puts it together; the description, which the UI takes for Markdown too, is escaped here.
    """
    if in_run():
        create_markdown_artifact(text, key=name, description=markdown(description))


def show_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> UUID | None:
    """Show rows likewise; the id of the artifact, if it was made."""
    if not in_run():
        return None
    return cast("UUID", create_table_artifact(cells(rows), key=name, description=markdown(description)))


def show_link(name: str, address: str, text: str, description: str) -> None:
    """Show a link likewise."""
    if in_run():
        create_link_artifact(address, link_text=text, key=name, description=markdown(description))


def cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an artifact. The UI takes a cell that is text for Markdown: each is escaped here."""
    return [{column: markdown(v) if isinstance(v, str) else v for column, v in row.items()} for row in rows]


def log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, or a plain one outside a run."""
    return get_run_logger() if in_run() else logging.getLogger("fabrating")


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A `Progress` that keeps one progress artifact per stage up to date and logs when a stage starts and ends.

    It calls the server at most every two seconds and never stops the work: a failed update is logged and forgotten.
    """
    shown = _Shown(title)
    yield shown
    shown.close()


def described(done: int, total: int, rate: float, counters: Mapping[str, float]) -> str:
    """How far a stage is: "1,280 of 3,250, 64 a second, 31 s left, bytes read 182,100,000". `rate` 0: unknown."""
    words = [f"{done:,} of {total:,}"]
    if rate > 0:
        words.append(f"{_number(rate)} a second" if rate >= 1 else f"{lasting(1 / rate)} each")
        if done < total:
            words.append(f"{lasting((total - done) / rate)} left")
    words += [f"{name.replace('_', ' ')} {_number(amount)}" for name, amount in counters.items()]
    return ", ".join(words)


def _number(amount: float) -> str:
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.0f}" if amount >= 100 else f"{amount:.4g}"


class _Stage:
    """One stage: its artifact, how far it is, and what it did in the last minute."""

    def __init__(self, artifact: Any):
        self.artifact = artifact
        self.started = self.updated = 0.0
        self.done, self.total = 0, 0
        self.counters: Mapping[str, float] = {}
        self.evaluations = Evaluations()
        self._seen: list[tuple[float, int]] = []

    def see(self, now: float, done: int, total: int, counters: Mapping[str, float]) -> None:
        if not self._seen or done < self.done:  # the next arm's shards start from 0
            self.started, self._seen = now, [(now, done)]
        self.done, self.total, self.counters = done, total, dict(counters)
        if now - self._seen[-1][0] >= SECONDS_BETWEEN_UPDATES:
            self._seen = [(then, count) for then, count in self._seen if now - then <= WINDOW] + [(now, done)]

    def text(self) -> str:
        """With the rate of the last minute, which leaves out what came before the first unit, such as compiling."""
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        rate = (after - before) / (last - first) if last > first else 0.0
        return described(self.done, self.total, rate, self.counters)


class _Shown:
    """One progress artifact per stage. They belong to the run that this is made in, whatever thread reports."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic):
        self._title, self._clock, self._active = title, clock, in_run()
        self._context = contextvars.copy_context()
        self._stages: dict[str, _Stage] = {}

    def __call__(self, name: str, done: int, total: int, counters: Mapping[str, float]) -> None:
        self._context.copy().run(self._show, name, done, total, counters)

    def _show(self, name: str, done: int, total: int, counters: Mapping[str, float]) -> None:
        now = self._clock()
        if name not in self._stages:
            log().info("%s: %s, %s to do", self._title, name, f"{total:,}")
            self._stages[name] = _Stage(self._create(name))
        stage = self._stages[name]
        if evaluated := stage.evaluations.news(done, total, counters):
            log().info("%s: %s", self._title, evaluated)
        stage.see(now, done, total, counters)
        if done >= total or now - stage.updated >= SECONDS_BETWEEN_UPDATES:
            stage.updated = now
            self._update(name, stage)

    def close(self) -> None:
        """Log how each stage ended."""
        for name, stage in self._stages.items():
            ended = described(stage.done, stage.total, 0.0, stage.counters)
            log().info("%s: %s, %s, in %s", self._title, name, ended, lasting(max(0.0, stage.updated - stage.started)))

    def _create(self, name: str) -> Any:
        if not self._active:
            return None
        try:
            return create_progress_artifact(
                progress=0.0, key=key(self._title, name), description=markdown(f"{self._title}: {name}")
            )
        except Exception as error:  # the server may be down; the work goes on
            log().warning("%s: progress cannot be shown (%s)", self._title, type(error).__name__)
            return None

    def _update(self, name: str, stage: _Stage) -> None:
        if stage.artifact is None:
            return
        percent = 100.0 if stage.total <= 0 else min(100.0, 100.0 * stage.done / stage.total)
        try:
            update_progress_artifact(
                artifact_id=stage.artifact,
                progress=percent,
                description=markdown(f"{self._title}: {name}, {stage.text()}"),
            )
        except Exception as error:
            log().warning("%s: progress was not shown (%s)", self._title, type(error).__name__)


def cancelled(flow_run: str | None = None) -> bool:
    """Whether the flow run (default: the one this is called in) is being cancelled, or was.

    False outside a flow run, and when the server does not answer.
    """
    flow_run = flow_run or runtime.flow_run.id
    if flow_run is None:
        return False
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run))).state
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
    return False


def handed_over() -> bool:
    """Whether the server has given the flow run that this is called in to another process, after it declared it crashed.

    False outside a flow run, and when the server does not answer.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.state is None:
        return False
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(context.flow_run.id).state
        if state is None or state.is_final() or state.is_cancelling():
            return False
        return state.id != context.flow_run.state.id
    return False


@contextlib.contextmanager
def watched() -> Iterator[Stop]:
    """Ask the server every ten seconds, on a thread: the yielded function says whether the run was cancelled.

    A worker ends the processes of a cancelled run. One that was restarted in between, or cut off from the server, never
    learns of it: a training would go on, hold its GPU, and nobody could stop it. So it asks by itself.
    """
    flow_run = runtime.flow_run.id
    if flow_run is None:
        yield never
        return
    found, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not found.is_set() and not ended.wait(SECONDS_BETWEEN_QUESTIONS):
            if cancelled(flow_run):
                found.set()

    threading.Thread(target=watch, name="cancellation", daemon=True).start()
    try:
        yield found.is_set
    finally:
        ended.set()
