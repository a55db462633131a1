"""What a person sees of a step while it runs. Beside this module, `cancellation`, the `steps.py` and the flows, nothing knows Prefect.

Outside of a flow run everything here only logs, so that a task's function works as plain code.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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


def described(done: int, total: int, seconds: float, counters: Mapping[str, float], before: int = 0) -> str:
    """Where a stage is: "1,280 of 3,250, 64 a second, 31 s left, bytes read 182,100,000".

    `before`: how many were done when its clock began.
    """
    words = [f"{done:,} of {total:,}"]
    if done > before and seconds > 0:
        rate = (done - before) / seconds
        words.append(f"{rate:,.3g} a second" if rate < 1000 else f"{rate:,.0f} a second")
        if done < total:
            words.append(f"{lasting((total - done) / rate)} left")
    for name, amount in counters.items():
        words.append(f"{name.replace('_', ' ')} " + (f"{amount:,}" if isinstance(amount, int) else f"{amount:,.4g}"))
    return ", ".join(words)


def lasting(seconds: float) -> str:
    """A time as a person says it: 41 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class _Stage:
    """One stage: its artifact, when its clock began with how much done, when it was shown last, and where it is."""

    artifact: Any
    started: float
    before: int
    updated: float = 0.0
    done: int = 0
    total: int = 0
    counters: Mapping[str, float] = field(default_factory=dict)

    def text(self, now: float) -> str:
        return described(self.done, self.total, now - self.started, self.counters, self.before)


class _Shown:
    """One progress artifact per stage."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic):
        self._title, self._clock, self._active = title, clock, in_run()
        self._stages: dict[str, _Stage] = {}
        self._heard = clock()

    def __call__(self, name: str, done: int, total: int, counters: Mapping[str, float]) -> None:
        now = self._clock()
        if name not in self._stages:
            log().info("%s: %s, %s to do", self._title, name, f"{total:,}")
            # the first units were under way since the stage before had its last word
            self._stages[name] = _Stage(self._create(name), self._heard, done)
        self._heard = now
        stage = self._stages[name]
        stage.done, stage.total, stage.counters = done, total, dict(counters)
        if done >= total or now - stage.updated >= SECONDS_BETWEEN_UPDATES:
            stage.updated = now
            self._update(name, stage)

    def close(self) -> None:
        """Say how each stage ended."""
        for name, stage in self._stages.items():
            ended = max(stage.updated, stage.started)
            log().info("%s: %s, %s, in %s", self._title, name, stage.text(ended), lasting(ended - stage.started))

    def _create(self, name: str) -> Any:
        if not self._active:
            return None
        try:
            return create_progress_artifact(
                progress=0.0, key=key(self._title, name), description=f"{self._title}: {name}"
            )
        except Exception as error:  # the server may be away; the work goes on
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
                description=f"{self._title}: {name}, {stage.text(stage.updated)}",
            )
        except Exception as error:
            log().warning("%s: progress was not shown (%s)", self._title, type(error).__name__)
