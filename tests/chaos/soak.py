"""`python -m tests.chaos.soak`: many small runs through the whole stack, then a count: none lost, none run twice.

The parts are those of `tests.chaos.harness`: a Prefect server on PostgreSQL, a worker for each pool, the product's deployments and
its reaper. One arm is prepared and trained. Runs of `experiment/top16` (cpu pool) and `train/train` (gpu pool, one at a time)
with the same parameters follow: each starts its own process, finds everything complete and ends. None leaves an attempt in the
run ledger, which would show that something was trained twice. Exit status 1 if the count is wrong.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.local.stack import SAMPLE_CONTAINER, SAMPLE_NAME
from tests.chaos.harness.arm import DEPLOYMENT, TRAIN, ArmRun
from tests.chaos.harness.rig import Rig, rig

TRAINING = "train/train"
RUN_SECONDS = 300.0
"""A run that has not ended by then is lost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them and print the counts as JSON."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=3, help="how many runs to have under way at a time")
    parser.add_argument(
        "--home", type=Path, help="folder for everything (default: a temporary one); its content is deleted"
    )
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the parts are stopped on the way out
    with contextlib.ExitStack() as stack:
        folder = given.home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL's account must reach it
        parts = stack.enter_context(rig(folder / "rig", say, quick=False))
        counted = soak(parts, given.runs, given.at_once)
    print(json.dumps(counted, indent=1), flush=True)
    return 0 if counted["completed once"] == given.runs else 1


def soak(parts: Rig, runs: int, at_once: int) -> dict[str, Any]:
    """`runs` runs, at most `at_once` of them under way; returns what was counted and measured."""
    first = ArmRun(parts.server, parts.home / "root" / "soak", f"az://{SAMPLE_CONTAINER}/{SAMPLE_NAME}")
    first.start()
    if (state := first.finish())["type"] != "COMPLETED":
        raise SystemExit(f"The first experiment is {state['name']}: {state['message']}; see {parts.home}.")
    ledger = next(first.root.glob("runs/*/run.json"))
    arm = json.loads(ledger.read_text())["arm_id"]
    training = {"arm": arm, "train": TRAIN, "seed": first.seed, "root": str(first.root)}
    wanted = [(DEPLOYMENT, first.parameters) if number % 2 else (TRAINING, training) for number in range(runs)]
    before, began = measured(parts), time.time()
    asked = ask_for(parts, wanted, at_once)
    seconds, after = time.time() - began, measured(parts)

    found = {run: parts.server.ask("GET", f"/flow_runs/{run}", patience=30) for run in asked}
    attempts = Counter(attempt["flow_run"] for attempt in json.loads(ledger.read_text())["attempts"])
    once = [
        run
        for run, seen in found.items()
        if seen["state"]["type"] == "COMPLETED" and seen["run_count"] == 1 and not attempts[run]
    ]
    return {
        "runs": runs,
        "completed once": len(once),
        "states": Counter(seen["state"]["name"] for seen in found.values()),
        "started more than once": sum(seen["run_count"] > 1 for seen in found.values()),
        "attempts in the ledger that are too many": sum(attempts[run] for run in asked),
        "minutes": round(seconds / 60, 2),
        "runs per minute": round(runs / seconds * 60, 2),
        "before": before,
        "after": after,
    }


def ask_for(parts: Rig, wanted: Sequence[tuple[str, dict[str, Any]]], at_once: int) -> list[str]:
    """Ask for the runs one after another, whenever fewer than `at_once` are under way; returns their ids when all have ended."""
    asked: list[str] = []
    waiting: dict[str, float] = {}
    todo = list(reversed(wanted))
    while todo or waiting:
        while todo and len(waiting) < at_once:
            deployment, parameters = todo.pop()
            asked.append(parts.server.start(deployment, parameters))
            waiting[asked[-1]] = time.monotonic() + RUN_SECONDS
        time.sleep(1)
        for run, deadline in list(waiting.items()):
            found = parts.server.ask("GET", f"/flow_runs/{run}")
            ended = found and found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            if ended or time.monotonic() > deadline:
                del waiting[run]
                if (len(asked) - len(waiting)) % 20 == 0:
                    say(f"{len(asked) - len(waiting)} of {len(wanted)} runs have ended")
    return asked


def measured(parts: Rig) -> dict[str, float]:
    """Memory of the server and size of its database, in MB."""
    return {
        "server MB": round(parts.resident("server") / 1e6, 1),
        "workers MB": round(sum(parts.resident(name) for name in ("worker-cpu", "worker-gpu")) / 1e6, 1),
        "database MB": round(parts.database.size() / 1e6, 1),
    }


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
