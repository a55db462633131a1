"""The ledger as people read it: a table of runs that fits a terminal, and all facts of one run."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.inventory import Thing, dependents
from tasks.records.layout import RUNS, VERDICTS, RunFolder
from tasks.records.ledger import Attempt, LedgerEntry
from tasks.records.metrics import THEN
from tasks.records.result import RunFacts
from tasks.reports.artifacts import MISSING, count, decile_rows, decimal, dollars, hours, selection, when
from tasks.reports.live import left
from tasks.store.root import Root

DIGITS = 6
"""Of a run's fingerprint, by which commands find it."""
WIDTH = 80
COLUMNS = (
    *("run", "name", "comparison", "arm", "seed", "depth", "engine", "host", "gpus", "commit"),
    *("tokens", "epochs", "text_share", "mean_score", "step", "steps", "loss", "bpb", "core"),
    *("tokens_per_second", "hours", "dollars", "state", "attempts", "wandb"),
)


def core_scores(root: Root, found: Sequence[LedgerEntry]) -> dict[str, float]:
    """CORE of the runs that were evaluated on it, by run."""
    evaluated = ((entry.run, root.find(RunFolder(entry.run).core)) for entry in found)
    return {run: core.facts["core"] for run, core in evaluated if core is not None}


def table(
    found: Sequence[LedgerEntry], core: Mapping[str, float] | None = None
) -> list[dict[str, str | int | float | None]]:
    """The ledger's columns, one row an entry: what `fabrating runs --wide` prints. `core`: as `core_scores` says."""
    rows = []
    for entry in found:
        row = {column: getattr(entry, column, None) for column in COLUMNS}
        row |= {"core": (core or {}).get(entry.run), "host": THEN.join(entry.hosts), "gpus": entry.last.gpus}
        row |= {"commit": entry.last.commit or entry.last.code}
        row |= {"attempts": len(entry.attempts), "step": entry.steps if entry.step is None else entry.step}
        rows.append(row)
    return rows


def narrow(found: Sequence[LedgerEntry]) -> list[dict[str, str]]:
    """One row a run, at most 80 characters wide: long names are cut. Its first column finds the run in every command."""
    rows = [
        {
            "run": entry.name or entry.run.rpartition("-")[2][:DIGITS],
            "arm": entry.arm,
            "seed": str(entry.seed),
            "step": steps(entry),
            "bits/byte": decimal(entry.bpb),
            "tokens/s": count(entry.tokens_per_second),
            "cost": dollars(entry.dollars),
            "state": entry.state,
        }
        for entry in found
    ]
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in rows[0]} if rows else {}
    excess = sum(widths.values()) + 2 * (len(widths) - 1) - WIDTH
    for column, least in (("arm", 6), ("run", 10)):
        if excess > 0 and widths[column] > least:
            room = max(least, widths[column] - excess)
            excess -= widths[column] - room
            for row in rows:
                row[column] = cut(row[column], room)
    return rows


def cut(text: str, room: int) -> str:
    """A name cut to `room` characters."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


def steps(entry: LedgerEntry) -> str:
    """90 of 153; 153 for a run that has ended there."""
    if entry.step is None:
        return MISSING
    whole = entry.steps is None or entry.step == entry.steps
    return f"{entry.step:,}" if whole else f"{entry.step:,} of {entry.steps:,}"


def state(entry: LedgerEntry) -> str:
    """The state of a run, and of one that trains the time left: running, 12 min left."""
    remaining = left(entry)
    return f"{entry.state}, {remaining} left" if remaining else entry.state


def facts(root: Root, run: str) -> dict[str, Any]:
    """What is known of one run: what it trained on and how, how far it came, its scores, checkpoints and attempts, where it lies.

    Raises InputError when neither the ledger nor a result knows it.
    """
    entry, result = ledger.find(root, run), root.find(RunFolder(run).result)
    if entry is None and result is None:
        raise InputError(
            f"The run {run} under {root.url} has neither an entry in the ledger nor a result: nothing is known of it."
        )
    known: dict[str, Any] = {"run": run}
    if entry is not None:
        known |= _of_entry(entry)
    if result is not None:
        found = RunFacts.of(result)
        known |= {
            "arm": result.inputs["arm"],
            "pool": result.inputs["pool"],
            "steps": count(found.steps),
            "trained tokens": count(found.tokens),
            "bits per byte": decimal(found.bpb),
            "device": found.device,
            "computed by": found.compute,
        }
    if (core := root.find(RunFolder(run).core)) is not None:
        known["CORE"] = decimal(core.facts["core"])
    folder = RunFolder(run)
    checkpoints = [int(name.rpartition("_")[2]) for name in root.names(folder.checkpoints)]
    known["checkpoints after step"] = ", ".join(f"{step:,}" for step in checkpoints) or MISSING
    judged = [each.id for each in dependents(root, Thing(RUNS, run)) if each.kind == VERDICTS]
    known["verdicts"] = ", ".join(judged) or MISSING
    known["where"] = f"{root.url}/{folder.folder}"
    if result is not None and (rows := decile_rows(RunFacts.of(result).bpb_by_decile)):
        known["by score"] = rows
    if entry is not None:
        known["attempts"] = [_attempt(number, each) for number, each in enumerate(entry.attempts, start=1)]
    return known


def _of_entry(entry: LedgerEntry) -> dict[str, Any]:
    training = entry.experiment.training
    known = {
        "name": entry.name,
        "comparison": entry.comparison,
        "arm": entry.arm_id,
        "takes": selection(entry.experiment.arm.identity()),
        "pool": entry.pool_id,
        "seed": str(entry.seed),
        "model": f"depth {training.depth}, {training.engine}, {training.recipe}, {training.precision}",
        "state": state(entry),
        "stopped by": entry.error,
        "steps": steps(entry),
        "trained tokens": count(entry.tokens),
        "loss": decimal(entry.loss),
        "bits per byte": decimal(entry.bpb),
        "tokens/s": count(entry.tokens_per_second),
        "time": hours(entry.hours),
        "cost": dollars(entry.dollars),
        "W&B": entry.wandb,
    }
    return {name: value for name, value in known.items() if value is not None}


def _attempt(number: int, attempt: Attempt) -> dict[str, str]:
    ended = attempt.finished
    return {
        "attempt": str(number),
        "state": attempt.state,
        "host": attempt.host,
        "began": when(datetime.fromtimestamp(attempt.started, UTC).isoformat()),
        "time": hours((ended - attempt.started) / 3600) if ended else "still going",
        "code": attempt.commit or attempt.code,
    }
