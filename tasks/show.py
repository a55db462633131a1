"""What a person sees of a step while it runs. Beside this module, `cancellation`, the `steps.py` and the flows, nothing knows Prefect.

Outside of a flow run everything here only logs, so that a task's function works as plain code.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import get_run_context
from prefect.exceptions import MissingContextError

from tasks.errors import ChangedError, DamagedError, InputError
from tasks.progress import Progress

SECONDS_BETWEEN_UPDATES = 2.0
MISTAKES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, NotImplementedError)
NEVER_RETRIED = (InputError, DamagedError, ChangedError, *MISTAKES)


def key(*parts: str) -> str:
    """A Prefect artifact key from readable parts: lower case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def in_run() -> bool:
    """Whether a flow or task run is there to show things to."""
    try:
        get_run_context()
    except MissingContextError:
        return False
    return True


def log() -> logging.Logger | logging.LoggerAdapter:
    """The run's logger, or a plain one outside of a run."""
    return get_run_logger() if in_run() else logging.getLogger("fabrating")


def retryable(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: what the network did is tried again, what a person must change is not."""
    try:
        state.result()
    except NEVER_RETRIED:
        return False
    except Exception:
        return True
    return False


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A `Progress` that keeps one progress artifact per stage up to date and logs where a stage starts and ends.

    The server is asked at most every two seconds, and never stops the work: a lost update is logged and forgotten.
    """
    shown = _Shown(title)
    yield shown
    shown.close()


class _Shown:
    """One progress artifact per stage."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic):
        self._title, self._clock, self._active = title, clock, in_run()
        self._stages: dict[str, tuple[Any, float, float]] = {}  # artifact id, started, last update
        self._last: dict[str, tuple[int, int, Mapping[str, float]]] = {}

    def __call__(self, stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
        now = self._clock()
        self._last[stage] = (done, total, dict(counters))
        if stage not in self._stages:
            log().info("%s: %s, %s to do", self._title, stage, f"{total:,}")
            self._stages[stage] = (self._create(stage), now, 0.0)
        artifact, started, updated = self._stages[stage]
        if done >= total or now - updated >= SECONDS_BETWEEN_UPDATES:
            self._stages[stage] = (artifact, started, now)
            self._update(stage, artifact)

    def close(self) -> None:
        """Say how each stage ended."""
        for stage, (_, started, updated) in self._stages.items():
            done, total, counters = self._last[stage]
            seconds = max(updated, started) - started
            counted = "".join(f", {name} {amount:,.4g}" for name, amount in counters.items())
            log().info("%s: %s, %s of %s in %.1f s%s", self._title, stage, f"{done:,}", f"{total:,}", seconds, counted)

    def _create(self, stage: str) -> Any:
        if not self._active:
            return None
        try:
            return create_progress_artifact(
                progress=0.0, key=key(self._title, stage), description=f"{self._title}: {stage}"
            )
        except Exception as error:  # the server may be away; the work goes on
            log().warning("%s: progress cannot be shown (%s)", self._title, type(error).__name__)
            return None

    def _update(self, stage: str, artifact: Any) -> None:
        if artifact is None:
            return
        done, total, counters = self._last[stage]
        percent = 100.0 if total <= 0 else min(100.0, 100.0 * done / total)
        counted = "".join(f", {name} {amount:,.4g}" for name, amount in counters.items())
        try:
            update_progress_artifact(
                artifact_id=artifact,
                progress=percent,
                description=f"{self._title}: {stage}, {done:,} of {total:,}{counted}",
            )
        except Exception as error:
            log().warning("%s: progress was not shown (%s)", self._title, type(error).__name__)
