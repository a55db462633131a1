"""Index, filter and select over a corpus of tiny texts with six ratings, by this code and by that of another checkout.

What is measured runs in a process of its own, once for each checkout, in turn. It calls what both have: `build_index` and
`plan_arm`, which selects and reads no text. Memory is the peak of resident memory, mapped pages included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES = 100
SIX = (
    "pedagogical_structure_average",
    "factual_accuracy_average",
    "lesson_engagement_average",
    "education_level_average",
    "education_level_primary_average",
    "education_level_secondary_average",
)
WHERE = "education_level_average > -1 and education_level_primary_average < 1"
JOBS: dict[str, dict[str, Any]] = {
    "three ratings": {"pool": {"score": dict.fromkeys(SIX[:3], 1.0)}},
    "six ratings, filtered": {"arm": {"score": dict.fromkeys(SIX, 1.0), "where": WHERE}},
    "an expression of six, filtered": {"arm": {"score": " + ".join(SIX), "where": WHERE}},
}


def write(folder: Path, documents: int) -> Path:
    """`FILES` names of one file: whoever reads them cannot tell, and the disk holds it once."""
    rows = documents // FILES
    raw = folder / f"ratings-{FILES}x{rows}"
    if raw.is_dir():
        return raw
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "text": pa.array([f"text {row}" for row in range(rows)]),
        "token_count": rng.integers(50, 5_000, rows),
    }
    columns |= {name: rng.normal(size=rows).round(4) for name in SIX}
    pq.write_table(pa.table(columns), raw / "000.parquet", row_group_size=100_000)
    for number in range(1, FILES):
        os.link(raw / "000.parquet", raw / f"{number:03d}.parquet")
    return raw


def job(raw: str, root: Path, given: dict[str, Any]) -> dict[str, float]:
    """Seconds and peak MiB of each step, of whatever code is imported."""
    from tasks.corpus.prepare import build_holdout, build_index, open_pool, plan_arm
    from tasks.spec import Arm, Pool
    from tasks.store.root import Root

    store, arm = Root(root), Arm(**given.get("arm", {}))
    pool = open_pool(store, Pool(source=raw, **given.get("pool", {})))
    found = {}
    try:
        from tasks.corpus.arm.traits import wanted_columns

        columns = (wanted_columns(arm, pool.pool),)
    except ImportError:  # a pool had one score
        columns = ()
    steps = {
        "index": lambda: build_index(store, pool, *columns),
        "holdout": lambda: build_holdout(store, pool),
        "select": lambda: plan_arm(store, pool, arm),
    }
    for step, work in steps.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        began, used = time.monotonic(), time.process_time()
        work()
        status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        found |= {f"{step} s": time.monotonic() - began, f"{step} CPU s": time.process_time() - used}
        found[f"{step} MiB"] = int(status) / 1024
    return found


def main(arguments: argparse.Namespace) -> None:
    """Measure the jobs of this code in turn with that of the other checkout, and print medians and ratios."""
    folder = arguments.folder.absolute()
    raw = write(folder / "store", arguments.documents).as_uri()
    here = str(Path(__file__).parents[2])
    runs = [("three ratings", arguments.against)] if arguments.against else []
    runs += [(name, here) for name in JOBS]
    found: dict[tuple[str, str], list[dict[str, float]]] = {run: [] for run in runs}
    for _ in range(arguments.repeats):
        for name, checkout in runs:
            root = folder / "root"
            command = [sys.executable, __file__, raw, str(root), json.dumps(JOBS[name])]
            environment = os.environ | {"PYTHONPATH": checkout}
            done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found[name, checkout].append(json.loads(done.stdout))
            print(f"# {name} by {checkout}: {found[name, checkout][-1]}", flush=True)
            shutil.rmtree(root)
    medians = {
        run: {key: median(each[key] for each in measured) for key in measured[0]} for run, measured in found.items()
    }
    keys = [key for key in medians[runs[0]] if "holdout" not in key]
    print(f"\n{arguments.documents:,} documents\n\n| | {' | '.join(keys)} |\n|{' --- |' * (len(keys) + 1)}")
    base = medians[runs[0]]
    for run in runs:
        cells = (f"{medians[run][key]:,.1f} ({medians[run][key] / base[key]:.2f})" for key in keys)
        print(f"| {run[0]}{'' if run[1] == here else ', the other'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    raw_url, root_folder, settings = sys.argv[1:]
    print(json.dumps(job(raw_url, Path(root_folder), json.loads(settings))))
