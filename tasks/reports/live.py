"""Where the runs of a comparison stand while they are trained: one table, the same in Prefect and on a terminal."""

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tasks.records import ledger
from tasks.records.layout import RunFolder
from tasks.records.ledger import LedgerEntry
from tasks.reports.artifacts import hours, rounded
from tasks.spec import Experiment
from tasks.store.root import Root

SECONDS_BETWEEN_UPDATES = 5.0
SCORING = "scoring"
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Row = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Standing:
    """One row a run, and what is known of the answer so far."""

    rows: list[Row]
    so_far: str

    @property
    def summary(self) -> str:
        """3 of 8 runs completed, 1 running, 4 waiting, and the answer so far."""
        states = [str(row["state"]) for row in self.rows]
        others = sorted({*states} - {"completed"}, key=lambda state: (state == "waiting", states.index(state)))
        counts = [f"{states.count('completed')} of {len(states)} runs completed"]
        return f"{', '.join([*counts, *(f'{states.count(state)} {state}' for state in others)])}. {self.so_far}"


@contextlib.contextmanager
def followed(
    standing: Callable[[], Standing], show: Callable[[Standing], None], log: Log, shown: Standing | None = None
) -> Iterator[None]:
    """Call `show` with what has changed since `shown`, at once and every five seconds while the block runs, and at its end.

    Never stops the work: what fails is logged, and tried again the next time.
    """
    ended = threading.Event()

    def follow() -> None:
        last = shown
        while True:
            over = ended.is_set()
            try:
                if (now := standing()) != last:
                    show(now)
                    last = now
            except Exception as error:  # the server or the store may be down; the runs go on
                log.warning("The table of runs was not updated (%s: %s)", type(error).__name__, error)
            if over:
                return
            ended.wait(SECONDS_BETWEEN_UPDATES)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(follow,), name="runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(SECONDS_BETWEEN_UPDATES)


class RunsTable:
    """The rows of some runs, {id: what it trains}, read from the ledger. What is completed is not read again."""

    def __init__(self, root: Root, runs: Mapping[str, Experiment]):
        self._root, self._runs = root, runs
        self._completed: dict[str, Row] = {}

    def rows(self) -> list[Row]:
        """As it is now: state, step of steps, loss, bits per byte so far, time left."""
        rows = [self._completed.get(run) or self._row(run, whole) for run, whole in self._runs.items()]
        self._completed |= {str(row["run"]): row for row in rows if row["state"] == "completed"}
        return rows

    def _row(self, run: str, whole: Experiment) -> Row:
        row: Row = {"run": run, "arm": whole.arm.name, "seed": whole.seed}
        entry = ledger.find(self._root, run)
        if entry is None:
            finished = self._root.find(RunFolder(run).result)
            bpb = rounded(finished.facts["bpb"]) if finished else None
            state = "completed" if finished else "waiting"
            return row | {"state": state, "step": "", "loss": None, "bits per byte": bpb, "left": ""}
        step = "" if entry.step is None else f"{entry.step:,}" + (f" of {entry.steps:,}" if entry.steps else "")
        return row | {
            "state": entry.state,
            "step": step,
            "loss": rounded(entry.loss),
            "bits per byte": rounded(entry.bpb),
            "left": left(entry),
        }


def left(entry: LedgerEntry) -> str:
    """Time until the last step of a run that trains, by its newest speed: 12 min; then SCORING. Empty where it is not known."""
    if entry.state != "running" or not entry.tokens_per_second:
        return ""
    if entry.steps and entry.step == entry.steps:
        return SCORING
    if entry.step and entry.steps and entry.tokens:
        tokens = entry.tokens / entry.step * entry.steps
    elif (budget := entry.experiment.training.tokens) is not None:
        tokens = budget
    else:
        return ""
    return hours(max(0, tokens - (entry.tokens or 0)) / entry.tokens_per_second / 3600)
