"""The run ledger: one `runs/<run>/run.json` a run, with every attempt at it, readable with no server up.

An entry says what a spreadsheet kept by hand would: arm, seed, host, GPUs, commit, budget, step, bits per byte, tokens per
second, hours, dollars, state, attempts, W&B run. Only this module writes it. Whoever drives the trainer calls `open_entry`
before and `finish` after; an entry whose process died in between says so when it is read. A run with a result under the root is
completed, however its last attempt ended.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

import psutil

from tasks.errors import DamagedError, InputError
from tasks.records.code import Code
from tasks.records.layout import ENTRY, METRICS, RUNS, RunFolder, run_id
from tasks.records.metrics import last_metrics, mirrored_metrics
from tasks.records.record import Record
from tasks.spec import Experiment
from tasks.store.artifact import Manifest
from tasks.store.machine import machine
from tasks.store.root import Root

State = Literal["running", "completed", "interrupted", "failed", "cancelled", "lost", "silent"]
"""lost: the process ended without reporting it. silent: no news for a while; found when an entry is read, never written."""
SILENT_AFTER = 15 * 60  # seconds; compiling and a large evaluation each take a few minutes without a new line
REMEDY = "move this ledger entry away, and the next attempt starts a new one"
LIVE = ("step", "steps", "tokens", "bpb", "loss", "tokens_per_second", "mfu", "device")


class Attempt(Code):
    """One attempt at a run: by which code, where, when (Unix seconds), and how it ended."""

    started: float
    finished: float | None = None
    state: State
    host: str
    machine: str | None = None
    pid: int
    gpus: int
    dollars_per_gpu_hour: float
    flow_run: str | None = None
    error: str | None = None


class Measured(Record):
    """What a run has reached: the facts of its result if it is finished, else its newest metrics."""

    bpb: float | None = None
    bpb_by_decile: tuple[float | None, ...] | None = None
    loss: float | None = None
    step: int | None = None
    steps: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    wall_seconds: float | None = None
    device: str | None = None
    trained_documents: int | None = None
    trained_bytes: int | None = None
    text_share: float | None = None
    mean_score: float | None = None
    arm_mean_score: float | None = None
    epochs: int | None = None
    gpus: int | None = None
    peak_memory_bytes: int | None = None

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Measured":
        """The measurements among the facts of a result or the keys of a metrics line."""
        return cls.model_validate(facts, extra="ignore")


class LedgerEntry(Measured):
    """All that the ledger knows of a run, the newest attempt last."""

    format: Literal[1] = 1
    run: str
    name: str | None = None
    """What a person calls it; no part of its identity."""
    comparison: str | None = None
    """The comparison that it was trained for, if any."""
    arm: str
    arm_id: str
    pool_id: str
    seed: int
    depth: int
    engine: str
    precision: str
    experiment: Experiment
    attempts: tuple[Attempt, ...]
    state: State = "running"
    error: str | None = None
    wandb: str | None = None
    hours: float = 0.0
    """Wall time of all attempts."""
    dollars: float = 0.0
    updated: float = 0.0

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def active(self) -> bool:
        """Whether a process may still write to the run's folder."""
        return self.state in ("running", "silent")

    @property
    def hosts(self) -> list[str]:
        """Where it was trained, the first host first, each once."""
        return list(dict.fromkeys(attempt.host for attempt in self.attempts))


def open_entry(
    root: Root,
    experiment: Experiment,
    pool_id: str,
    arm_id: str,
    *,
    flow_run: str | None = None,
    name: str | None = None,
    comparison: str | None = None,
) -> LedgerEntry:
    """Note that an attempt at a run begins here and now, under the name that a person gave it, for a comparison.

    An earlier attempt that never reported its end is closed as "lost", at the time of its last sign of life.
    """
    run, training = run_id(experiment, arm_id), experiment.training
    attempt = Attempt(
        **Code.of_this_process().model_dump(),
        started=time.time(),
        state="running",
        host=os.environ.get("FABRATING_WORKER") or socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        gpus=training.gpus,
        dollars_per_gpu_hour=training.dollars_per_gpu_hour,
        flow_run=flow_run,
    )

    def opened(entry: LedgerEntry | None) -> LedgerEntry:
        if entry is None:
            return LedgerEntry(
                run=run,
                name=name,
                comparison=comparison,
                arm=experiment.arm.name,
                arm_id=arm_id,
                pool_id=pool_id,
                seed=experiment.seed,
                depth=training.depth,
                engine=training.engine,
                precision=training.precision,
                experiment=experiment,
                attempts=(attempt,),
            )
        seen = last_metrics(root.path(RunFolder(run).file(METRICS))).get("time", 0)
        earlier = [
            each.model_copy(update={"state": "lost", "finished": max(seen, each.started)})
            if each.state == "running"
            else each
            for each in entry.attempts
        ]
        named = {"name": name or entry.name, "comparison": entry.comparison or comparison}
        return entry.model_copy(update={"state": "running", "error": None, "attempts": (*earlier, attempt), **named})

    return _edit(root, run, opened)


def start_clock(root: Root, run: str) -> None:
    """Note that this process's attempt has its GPU from now on, since waiting costs nothing. Without such an attempt, do nothing."""

    def own(entry: LedgerEntry | None) -> bool:
        return entry is not None and (entry.last.machine, entry.last.pid) == (machine(), os.getpid())

    def started(known: LedgerEntry | None) -> LedgerEntry:
        entry = _known(root, run, known)
        last = entry.last.model_copy(update={"started": time.time()}) if own(entry) else entry.last
        return entry.model_copy(update={"attempts": (*entry.attempts[:-1], last)})

    if own(_read(root, run)):
        _edit(root, run, started)


def call(root: Root, run: str, name: str | None) -> None:
    """Note the name that a person gave to a run in the ledger. Without a name, do nothing."""
    if name and (known := _read(root, run)) is not None and known.name != name:
        _edit(root, run, lambda entry: _known(root, run, entry).model_copy(update={"name": name}))


def note_wandb(root: Root, run: str, where: str) -> LedgerEntry:
    """Say where W&B shows the run. Raises InputError when there is no such run."""
    return _edit(root, run, lambda entry: _known(root, run, entry).model_copy(update={"wandb": where}))


def finish(
    root: Root,
    run: str,
    state: Literal["completed", "interrupted", "failed", "cancelled"],
    *,
    error: str | None = None,
    facts: Mapping[str, object] | None = None,
) -> LedgerEntry:
    """Close this process's attempt with `state`; take over what the result counted (`facts`), or else the newest metrics.

    An attempt that was stopped after the root had the result is completed. Raises InputError when there is no such run.
    """
    if state != "completed" and (found := _result(root, run)) is not None:
        state, error, facts = "completed", None, found.facts
    newest = last_metrics(root.path(RunFolder(run).file(METRICS)))
    measured = Measured.of(newest) if facts is None else _of_result(facts, newest.get("loss"))

    def finished(known: LedgerEntry | None) -> LedgerEntry:
        entry = _known(root, run, known)
        attempts = list(entry.attempts)
        own = [at for at, each in enumerate(attempts) if (each.machine, each.pid) == (machine(), os.getpid())]
        if own and attempts[own[-1]].state in ("running", "lost"):
            closing = {"state": state, "finished": time.time(), "error": error}
            attempts[own[-1]] = attempts[own[-1]].model_copy(update=closing)
        entry = entry.model_copy(update={"attempts": tuple(attempts)})
        if own and own[-1] != len(attempts) - 1 and state != "completed":
            return entry  # another host has begun an attempt, which decides the state of the run
        reached = measured.model_dump(exclude_none=True)
        return entry.model_copy(update={**reached, "state": state, "error": error})

    return _edit(root, run, finished)


def withdraw(root: Root, before: LedgerEntry) -> LedgerEntry:
    """Take back the attempt that this process opened, because the one that it found in `before` is still alive."""

    def withdrawn(known: LedgerEntry | None) -> LedgerEntry:
        entry = _known(root, before.run, known)
        went_on = {each.started for each in before.attempts if each.state == "running"}
        attempts = tuple(
            each.model_copy(update={"state": "running", "finished": None})
            if each.state == "lost" and each.started in went_on
            else each
            for each in entry.attempts
            if each.state != "running" or (each.machine, each.pid) != (machine(), os.getpid())
        )
        return entry.model_copy(update={"attempts": attempts, "state": attempts[-1].state, "error": attempts[-1].error})

    return _edit(root, before.run, withdrawn)


def find(root: Root, run: str) -> LedgerEntry | None:
    """The entry of one run as it stands, live numbers included, or None. Raises DamagedError when it cannot be read."""
    entry = _read(root, run)
    return _as_it_stands(root, entry) if entry else None


def entries(root: Root, unreadable: list[DamagedError] | None = None) -> list[LedgerEntry]:
    """All entries under the root, on this machine and in the remote store, newest attempt first. Raises DamagedError for one that cannot be
    read, or adds it to `unreadable`, if given.

    An entry that still says "running" gets its step, loss, bpb and speed from the metrics file; its state becomes "lost" when
    its process on this machine is gone, "silent" after 15 minutes without news.
    """
    runs = {path.parent.name for path in root.path(RUNS).glob(f"*/{ENTRY}")}
    if root.remote is not None:
        listed = root.remote.list(RUNS, suffix=f"/{ENTRY}")
        runs |= {blob.name.split("/")[1] for blob in listed if blob.name.count("/") == 2}
    found = []
    for run in sorted(runs):
        try:
            found += [entry] if (entry := find(root, run)) else []
        except DamagedError as error:
            if unreadable is None:
                raise
            unreadable.append(error)
    return sorted(found, key=lambda entry: entry.last.started, reverse=True)


def _known(root: Root, run: str, entry: LedgerEntry | None) -> LedgerEntry:
    if entry is None:
        raise InputError(f"The ledger under {root.url} has no run {run!r}: `fabrating runs` lists those it has.")
    return entry


def _edit(root: Root, run: str, change: Callable[[LedgerEntry | None], LedgerEntry]) -> LedgerEntry:
    """Write the entry that `change` makes of the present one, whichever hosts write to it."""

    def edited(there: bytes | None) -> bytes:
        entry = _priced(change(_newest(root, run, there))).model_copy(update={"updated": time.time()})
        return entry.to_json().encode()

    path = RunFolder(run).file(ENTRY)
    return LedgerEntry.parse(root.edit(path, edited), root.path(path), REMEDY)


def _read(root: Root, run: str) -> LedgerEntry | None:
    """The newer of the local and the mirrored copy."""
    return _newest(root, run, root.read(RunFolder(run).file(ENTRY)))


def _newest(root: Root, run: str, there: bytes | None) -> LedgerEntry | None:
    """The newer of the local copy and of what a remote root has."""
    path = root.path(RunFolder(run).file(ENTRY))
    copies = [copy for copy in (path.read_bytes() if path.is_file() else None, there) if copy is not None]
    return max(
        (LedgerEntry.parse(copy, path, REMEDY) for copy in copies), key=lambda entry: entry.updated, default=None
    )


def _result(root: Root, run: str) -> Manifest | None:
    """A run's result, if the root itself has it: nobody else sees one that waits for its upload."""
    name = RunFolder(run).result
    with contextlib.suppress(DamagedError):
        return root.find(name) if root.published(name) else None
    return None


def _of_result(facts: Mapping[str, object], loss: object) -> Measured:
    return Measured.of({"loss": loss, **facts, "step": facts.get("steps")})


def _as_it_stands(root: Root, entry: LedgerEntry) -> LedgerEntry:
    """The entry with live numbers and the real state of its process if it says "running"; completed if there is a result that nobody
    was left to note."""
    live = _live(root, entry) if entry.state == "running" else entry
    if live.state in ("running", "completed") or (result := _result(root, entry.run)) is None:
        return live
    ended = {"finished": entry.last.finished or datetime.fromisoformat(result.created).timestamp()}
    last = entry.last.model_copy(update={**ended, "state": "completed", "error": None})
    reached = _of_result(result.facts, live.loss).model_dump(exclude_none=True)
    closed = {"state": "completed", "error": None, "attempts": (*entry.attempts[:-1], last)}
    return _priced(live.model_copy(update={**reached, **closed}))


def _live(root: Root, entry: LedgerEntry) -> LedgerEntry:
    here = entry.last.machine == machine()
    elsewhere = root.remote is not None and not here
    live = (
        mirrored_metrics(root, entry.run) if elsewhere else last_metrics(root.path(RunFolder(entry.run).file(METRICS)))
    )
    measured = Measured.of({key: value for key, value in live.items() if key in LIVE}).model_dump(exclude_none=True)
    state: State = "running"
    # Hosts share names: an attempt is judged by its process only on the machine where it runs.
    if here and not psutil.pid_exists(entry.last.pid):
        state = "lost"
    elif time.time() - max(entry.last.started, live.get("time", 0)) > SILENT_AFTER:
        state = "silent"
    until = time.time() if state == "running" else live.get("time")
    if here and live.get("time", 0) < entry.last.started:
        until = entry.last.started  # it loads, or waits for its turn, which costs nothing
    return _priced(entry.model_copy(update={**measured, "state": state}), until)


def _priced(entry: LedgerEntry, until: float | None = None) -> LedgerEntry:
    """With wall hours and dollars of all attempts; an unfinished one counts until `until`. A CPU costs no GPU hours."""
    hours = dollars = 0.0
    gpu = "cpu" not in (entry.device, entry.experiment.training.device)
    for attempt in entry.attempts:
        finished = attempt.finished or until or attempt.started
        spent = max(0.0, finished - attempt.started) / 3600
        hours += spent
        dollars += spent * attempt.gpus * attempt.dollars_per_gpu_hour * gpu
    return entry.model_copy(update={"hours": hours, "dollars": dollars})
