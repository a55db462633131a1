"""What is kept of the study beside its README: verdicts and ladders with their reports, the ledger as a table, and the scores of the first
question. The report of a verdict on many pairs is left out: it is large.

`results/scores.parquet` has a row for each document of the holdout and each run of `best`: enough to compute its difference by hand,
as `by_hand` does.
"""

import csv
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.study.run import LADDERS, ORDER, form_of, specs_of
from tasks.records import ledger
from tasks.records.ladder import Ladder
from tasks.records.layout import LADDER, REPORT, SCORES, VERDICT, LadderFolder, RunFolder, VerdictFolder
from tasks.records.verdict import Verdict
from tasks.store.root import Root

RESULTS = Path(__file__).with_name("results")
QUESTION = "best"
MOST_PAIRS = 3
"""Of a verdict whose report is kept."""
TABLE = (
    "run",
    "arm",
    "seed",
    "depth",
    "tokens",
    "epochs",
    "bpb",
    "tokens_per_second",
    "device",
    "hours",
    "dollars",
    "state",
)


def newest(root: Root, name: str) -> tuple[Path, Verdict] | None:
    """The folder and the content of the newest verdict of that name under a root, if there is one."""
    found = [root.path(VerdictFolder(id).name) for id in VerdictFolder.all(root) if id.rpartition("-")[0] == name]
    read = [(folder, Verdict.read(folder / VERDICT)) for folder in found]
    return max(read, key=lambda each: each[1].created, default=None)


def newest_ladder(root: Root, name: str) -> tuple[Path, Ladder] | None:
    """The same of a ladder."""
    found = [root.path(LadderFolder(id).name) for id in LadderFolder.all(root) if id.rpartition("-")[0] == name]
    read = [(folder, Ladder.read(folder / LADDER)) for folder in found]
    return max(read, key=lambda each: each[1].created, default=None)


def rungs() -> list[str]:
    """The names of the comparisons that the ladders consist of."""
    return [spec.name for name in LADDERS for spec in specs_of(name)]


def published(folder: Path = RESULTS) -> dict[str, Verdict]:
    """The verdicts that are kept, by experiment, without those of the rungs."""
    return {name: Verdict.read(file) for name in ORDER if (file := folder / f"{name}.json").exists()}


def published_rungs(folder: Path = RESULTS) -> dict[str, Verdict]:
    """Those of the rungs."""
    return {name: Verdict.read(file) for name in rungs() if (file := folder / f"{name}.json").exists()}


def published_ladders(folder: Path = RESULTS) -> dict[str, Ladder]:
    """The ladders that are kept, by experiment."""
    return {name: Ladder.read(file) for name in LADDERS if (file := folder / f"{name}.json").exists()}


def keep(folder: Path = RESULTS, *, small: bool = False) -> None:
    """Copy what is kept from the study's root; what lies in the folder stays where the root has no verdict."""
    root, kept = Root(form_of(QUESTION, small).root), []
    folder.mkdir(exist_ok=True)
    for name in LADDERS:
        if ladder := newest_ladder(root, name):
            shutil.copy(ladder[0] / LADDER, folder / f"{name}.json")
            shutil.copy(ladder[0] / REPORT, folder / f"{name}.html")
    for name in (*ORDER, *(spec.name for ladder in LADDERS for spec in specs_of(ladder, small))):
        if found := newest(root, name):
            kept.append(name)
            shutil.copy(found[0] / VERDICT, folder / f"{name}.json")
            report = folder / f"{name}.html"
            report.unlink(missing_ok=True)
            if name in ORDER and len(found[1].comparisons) <= MOST_PAIRS:
                shutil.copy(found[0] / REPORT, report)
    if not kept:
        return
    runs = {run for name in kept for run in trained_for(Verdict.read(folder / f"{name}.json"))}
    rows = sorted((entry for entry in ledger.entries(root) if entry.run in runs), key=lambda entry: entry.last.started)
    with (folder / "runs.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(TABLE)
        lines.writerows([_plain(getattr(entry, name)) for name in TABLE] for entry in rows)
    if QUESTION in kept:
        pq.write_table(_scores(root, Verdict.read(folder / f"{QUESTION}.json")), folder / SCORES, compression="zstd")


def trained_for(verdict: Verdict) -> list[str]:
    """The runs that a verdict judges, and the shorter ones that checked what an arm saved."""
    checks = [pair.tokens_saved.checked for pair in verdict.comparisons]
    return [*verdict.runs, *(run for check in checks if check for run in check.runs)]


def _scores(root: Root, verdict: Verdict) -> pa.Table:
    """A row for each run and document: arm, seed, document, bytes, nats."""
    tables = []
    for arm in verdict.arms:
        for run, seed in zip(arm.runs, arm.seeds, strict=True):
            table = pq.read_table(root.path(RunFolder(run).result) / SCORES, columns=["document", "bytes", "nats"])
            same = {"arm": pa.array([arm.label] * len(table)), "seed": pa.array([seed] * len(table), pa.int16())}
            tables.append(pa.table({**same, **{name: table[name] for name in table.column_names}}))
    return pa.concat_tables(tables)


def by_hand(scores: Path = RESULTS / SCORES, a: str = "best", b: str = "random") -> float:
    """The difference of two arms in bits per byte, a less b, by nothing but sums over the kept scores.

    Bits per byte of a run: the nats of all documents over ln 2 and over their bytes. Of an arm: the mean over its runs.
    """
    table = pq.read_table(scores).to_pydict()
    nats: dict[tuple[str, int], float] = {}
    size: dict[tuple[str, int], int] = {}
    for arm, seed, documents_bytes, documents_nats in zip(
        table["arm"], table["seed"], table["bytes"], table["nats"], strict=True
    ):
        nats[arm, seed] = nats.get((arm, seed), 0.0) + documents_nats
        size[arm, seed] = size.get((arm, seed), 0) + documents_bytes
    runs = {run: nats[run] / math.log(2) / size[run] for run in nats}
    return _mean(value for (arm, _), value in runs.items() if arm == a) - _mean(
        value for (arm, _), value in runs.items() if arm == b
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _plain(value: object) -> object:
    return (
        f"{value:.5g}"
        if isinstance(value, float) and value < 1_000
        else round(value)
        if isinstance(value, float)
        else value
    )
