"""The run ledger: one `runs/<run>/run.json` a run, with every attempt at it, readable with no server up.

An entry says what a sheet kept by hand would: arm, seed, host, GPUs, commit, budget, step, bits per byte, tokens per second,
hours, dollars, state, attempts, W&B run. Only this module writes it; whoever drives the trainer calls `open_entry` before
and `finish` after, and an entry whose process died in between says so when it is read.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import variance
from typing import Any, Literal

import psutil

from tasks.errors import DamagedError, InputError
from tasks.records.layout import ENTRY, METRICS, RUNS, RunFolder
from tasks.records.layout import run_id as name_of_run
from tasks.records.metrics import last_metrics
from tasks.spec import Experiment, Training
from tasks.store.artifact import code_version, fingerprint, sha256_file, write_atomic
from tasks.store.locks import locked
from tasks.store.machine import machine
from tasks.store.root import Root

State = Literal["running", "completed", "interrupted", "failed", "cancelled"]
DECIDING = ("corpus", "tokens", "engines")
"""The rooms whose code decides what a run scores."""
SILENT_AFTER = 15 * 60  # seconds; compiling and a large evaluation each take a few minutes without a new line
RESULTS = (
    "bpb",
    "bpb_by_decile",
    "steps",
    "tokens",
    "tokens_per_second",
    "mfu",
    "device",
    "gpus",
    "peak_memory_bytes",
    "wandb",
)
LIVE = ("step", "tokens", "bpb", "loss", "tokens_per_second", "mfu")
COLUMNS = ("run", "arm", "seed", "depth", "engine", "host", "gpus", "commit", "tokens", "step", "bpb")
COLUMNS += ("tokens_per_second", "hours", "dollars", "state", "attempts", "wandb")


def open_entry(
    root: Root,
    experiment: Experiment,
    pool_id: str,
    arm_id: str,
    *,
    flow_run: str | None = None,
    group: str | None = None,
) -> dict[str, Any]:
    """Note that an attempt at a run begins here and now. Returns the entry.

    An earlier attempt that never reported its end is closed as "lost", at the time of its last sign of life.
    """
    run = name_of_run(experiment, arm_id)
    training = experiment.training
    with _editing(root, run) as entry:
        now = time.time()
        if not entry:
            entry.update(
                run=run,
                arm=experiment.arm.name,
                arm_id=arm_id,
                pool_id=pool_id,
                seed=experiment.seed,
                depth=training.depth,
                engine=training.engine,
                precision=training.precision,
                experiment=experiment.model_dump(mode="json"),
                attempts=[],
            )
        for attempt in entry["attempts"]:
            if attempt["state"] == "running":
                attempt.update(state="lost", finished=_last_sign(root, run, attempt))
        entry["attempts"].append(
            {
                "started": now,
                "finished": None,
                "state": "running",
                "host": os.environ.get("FABRATING_WORKER") or socket.gethostname(),
                "machine": machine(),
                "pid": os.getpid(),
                "gpus": training.gpus,
                "dollars_per_gpu_hour": training.dollars_per_gpu_hour,
                "code": code_version(),
                "commit": commit(),
                "source": source(),
                "flow_run": flow_run,
            }
        )
        entry.update(state="running", group=group or pool_id, error=None)
        return entry


def update(root: Root, run: str, **fields: Any) -> dict[str, Any]:
    """Set fields of an entry, such as `device=` or `wandb=`. Raises InputError when there is no such run."""
    with _editing(root, run, must_exist=True) as entry:
        entry.update(fields)
        return entry


def finish(
    root: Root, run: str, state: State, *, error: str | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Close the running attempt with `state`, and take over what the result's manifest counted (`facts`).

    Raises InputError when there is no such run.
    """
    with _editing(root, run, must_exist=True) as entry:
        attempt = entry["attempts"][-1]
        if attempt["state"] == "running":
            attempt.update(state=state, finished=time.time(), error=error)
        measured = facts if facts is not None else last_metrics(root.path(RunFolder(run).file(METRICS)))
        entry.update({key: measured[key] for key in RESULTS if measured.get(key) is not None})
        entry["step"] = measured.get("step" if facts is None else "steps", entry.get("step"))
        entry.update(state=state, error=error)
        return entry


def find(root: Root, run: str) -> dict[str, Any] | None:
    """The entry of one run as it stands, live numbers included, or None."""
    entry = _read(root, run)
    return _seen(root, entry) if entry else None


def entries(root: Root) -> list[dict[str, Any]]:
    """All entries under the root, on this machine and in the remote store, newest attempt first.

    An entry that still says "running" gets its step, loss, bpb and speed from the metrics file; its state becomes "lost" when
    its process on this machine is gone, "silent" when nothing was heard from it for 15 minutes.
    """
    runs = {path.parent.name for path in root.path(RUNS).glob(f"*/{ENTRY}")}
    if root.remote is not None:
        listed = root.remote.list(RUNS, suffix=f"/{ENTRY}")
        runs |= {blob.name.split("/")[1] for blob in listed if blob.name.count("/") == 2}
    found = [entry for run in runs if (entry := find(root, run))]
    return sorted(found, key=lambda entry: entry["attempts"][-1]["started"], reverse=True)


def table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ledger's columns, one row an entry: what `fabrating runs` prints."""
    rows = []
    for entry in found:
        last = entry["attempts"][-1]
        row = {column: entry.get(column) for column in COLUMNS}
        row |= {"host": last["host"], "commit": last["commit"] or last["code"], "gpus": last["gpus"]}
        row |= {"attempts": len(entry["attempts"]), "step": entry.get("step", entry.get("steps"))}
        rows.append(row)
    return rows


def spread_between_seeds(found: Sequence[Mapping[str, Any]], training: Training) -> tuple[float, int] | None:
    """Variance of bits per byte between seeds in finished runs alike, and its degrees of freedom; None when there are none.

    Alike: same engine, depth and precision, trained on half to twice the tokens when `training` names a budget. Pooled over
    groups that differ in their seed alone.
    """
    groups: dict[str, list[float]] = {}
    for entry in found:
        alike = all(entry.get(field) == getattr(training, field) for field in ("engine", "depth", "precision"))
        tokens, budget = entry.get("tokens"), training.tokens
        near = not budget or (tokens and budget / 2 <= tokens <= 2 * budget)
        if entry["state"] == "completed" and entry.get("bpb") is not None and alike and near:
            identity = Training(**entry["experiment"]["training"]).identity()
            groups.setdefault(json.dumps([entry["arm_id"], identity]), []).append(entry["bpb"])
    repeated = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    return (sum(variance(values) * (len(values) - 1) for values in repeated) / freedom, freedom) if freedom else None


def commit() -> str | None:
    """The commit of this checkout, with a + when files differ from it; None outside of a checkout."""
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        head = _git(here, "rev-parse", "--short=10", "HEAD").strip()
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no").strip() else "")
    return None


@cache
def source() -> str:
    """Ten hexadecimal digits of the modules that prepare, train and score: alike in a checkout and where its wheel is installed."""
    tasks = Path(__file__).resolve().parents[1]
    modules = sorted([tasks / "spec.py", *(path for room in DECIDING for path in (tasks / room).rglob("*.py"))])
    return fingerprint([[path.relative_to(tasks).as_posix(), sha256_file(path)] for path in modules])


def other_code(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """In what the code of two attempts differs, "x against y"; None where it does not, or is not known of both.

    By the modules where they are known of both: a commit that leaves them as they were is no difference.
    """
    field = next((field for field in ("source", "commit") if a.get(field) and b.get(field)), None)
    if field is None or a[field] == b[field]:
        return None
    shown = "commit" if a.get("commit") and b.get("commit") and a["commit"] != b["commit"] else field
    return f"{a[shown]} against {b[shown]}"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


@contextlib.contextmanager
def _editing(root: Root, run: str, *, must_exist: bool = False) -> Iterator[dict[str, Any]]:
    """An entry to change in place; written and mirrored when the block ends without an error."""
    path = root.path(RunFolder(run).file(ENTRY))
    with locked(root.folder / ".locks" / f"runs.{run}.{ENTRY}.lock"):
        entry = _read(root, run) or {}
        if must_exist and not entry:
            raise InputError(f"The ledger under {root.url} has no run {run!r}: `fabrating runs` lists those it has.")
        yield entry
        entry["updated"] = time.time()
        _price(entry)
        write_atomic(path, json.dumps(entry, indent=1) + "\n")
        root.upload_file(path)


def _read(root: Root, run: str) -> dict[str, Any] | None:
    """The newer of the local and the mirrored copy."""
    path = root.path(RunFolder(run).file(ENTRY))
    copies = [path.read_bytes()] if path.is_file() else []
    if root.remote is not None and (mirrored := root.remote.read_if_exists(RunFolder(run).file(ENTRY))) is not None:
        copies.append(mirrored)
    try:
        return max((json.loads(copy) for copy in copies), key=lambda entry: entry["updated"], default=None)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is not a ledger entry ({error!r}): move it away; the next attempt writes it anew."
        ) from error


def _seen(root: Root, entry: dict[str, Any]) -> dict[str, Any]:
    if entry["state"] != "running":
        return entry
    attempt = entry["attempts"][-1]
    live = last_metrics(root.path(RunFolder(entry["run"]).folder) / "metrics.jsonl")
    entry.update({key: live[key] for key in LIVE if key in live})
    # Hosts share names: an attempt is judged by its process only where that runs, and one of before `machine` nowhere.
    if attempt.get("machine") == machine() and not psutil.pid_exists(attempt["pid"]):
        entry["state"] = "lost"
    elif time.time() - max(attempt["started"], live.get("time", 0)) > SILENT_AFTER:
        entry["state"] = "silent"
    _price(entry, until=live.get("time") if entry["state"] != "running" else time.time())
    return entry


def _last_sign(root: Root, run: str, attempt: Mapping[str, Any]) -> float:
    seen = last_metrics(root.path(RunFolder(run).file(METRICS))).get("time", 0)
    return max(seen, attempt["started"])


def _price(entry: dict[str, Any], until: float | None = None) -> None:
    """Wall hours and dollars of all attempts; one that has no end yet counts until `until`. A CPU costs no GPU hours."""
    hours = dollars = 0.0
    gpu = "cpu" not in (entry.get("device"), entry["experiment"]["training"]["device"])
    for attempt in entry["attempts"]:
        finished = attempt["finished"] or until or attempt["started"]
        spent = max(0.0, finished - attempt["started"]) / 3600
        hours += spent
        dollars += spent * attempt["gpus"] * attempt["dollars_per_gpu_hour"] * gpu
    entry.update(hours=hours, dollars=dollars)
