"""`python -m benchmarks.training.warm`: what the runs of a comparison cost besides their steps, each in a process of its own (cold)
and one after another in the process that stays (warm).

Not steps: from the end of the run before (of the first: from the call) to the end of this one, its result complete and noted in the
ledger, less its steps at their measured speed. With two evaluations, two checkpoints and samples, on rows packed from FabRating's own source.

On a GPU:
--depth 6 --steps 153 --sequence-length 2048 --batch-tokens 131072 --precision bf16 --vocabulary 32768 --holdout-tokens 4000000
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import read_metrics
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.artifact import MANIFEST
from tasks.store.root import Root

WAYS = ("cold", "warm")


@dataclass(frozen=True)
class Spent:
    """Seconds of one run: in all, in steps, in evaluations (each from the line before), and before its first step."""

    whole: float
    steps: float
    evaluations: float
    start: float

    @classmethod
    def of(cls, root: Root, run: str, since: float) -> "Spent":
        lines = read_metrics(root.path(RunFolder(run).file(METRICS)))
        trained = [line for line in lines if line["kind"] == "train"]
        timed = [line["step_seconds"] for line in trained if line.get("step_seconds")]
        step = sum(timed) / len(timed)
        first = next(line["seconds"] for line in lines if line.get("event") == "first_step")
        evaluations = sum(two["time"] - one["time"] for one, two in pairwise(lines) if two["kind"] == "eval")
        return cls(ended_at(root, run) - since, step * len(trained), evaluations, first - step)

    @property
    def besides(self) -> float:
        return self.whole - self.steps

    def __str__(self) -> str:
        return (
            f"{self.whole:7.2f} s, steps {self.steps:7.2f}, not steps {self.besides:6.2f} "
            f"(of them start {self.start:5.2f}, evaluations {self.evaluations:5.2f})"
        )


def ended_at(root: Root, run: str) -> float:
    """When its result was complete."""
    return (root.path(RunFolder(run).result) / MANIFEST).stat().st_mtime


def told(way: str, spent: Sequence[Spent]) -> None:
    """Print the runs of one way."""
    for number, each in enumerate(spent, 1):
        print(f"  {way}, run {number}: {each}", flush=True)


def compare(given: argparse.Namespace) -> None:
    """Runs one after another, by the call that a comparison makes without a server."""
    from flows.recorded import recorded
    from tasks.engines import entry
    from tasks.hosts.smoke import ARM, POOL, build_inputs

    training = Training(
        depth=given.depth,
        sequence_length=given.sequence_length,
        window_pattern=given.window_pattern,
        batch_tokens=given.batch_tokens,
        precision=given.precision,
        recipe="quiet",
        tokens=given.steps * given.batch_tokens,
        save_every=-(-given.steps // 2),
        eval_every=-(-given.steps // 2),
        wandb="disabled",
    )
    spent = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            root = Root(Path(folder))
            rows = 2 * given.steps * given.batch_tokens // given.sequence_length
            build_inputs(root, rows, given.sequence_length, given.holdout_tokens, given.vocabulary)
            pool, spent[way] = Pool(name="smoke", vocab_size=given.vocabulary), []
            for seed in range(1, given.runs + 1):
                experiment = Experiment(pool=pool, arm=Arm(name="smoke"), training=training, seed=seed)
                began = time.time()
                with recorded(root, experiment, POOL, ARM) as facts:
                    comparison = "warm" if way == "warm" else None
                    result = entry.train(root, experiment, POOL, ARM, comparison=comparison)
                    facts |= result.facts
                run = RunFolder.of(result.name).id
                each = Spent.of(root, run, began)
                spent[way].append(replace(each, whole=time.time() - began))
            if way == "warm":
                holder = json.loads(root.path(RunFolder(run).file(".lock")).read_text())
                os.kill(holder["pid"], signal.SIGTERM)
        told(way, spent[way])
    alike(spent)


def alike(spent: dict[str, list[Spent]]) -> None:
    """Print what a run costs from the second on."""
    for way in WAYS:
        later = sorted((each.besides, each.besides - each.evaluations) for each in spent[way][1:])
        besides, rest = later[len(later) // 2]
        print(f"  {way}, from the second run on: {besides:.2f} s not steps, {rest:.2f} without evaluations (median)")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.training.warm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument("--window-pattern", default="L")
    parser.add_argument("--batch-tokens", type=int, default=1_024)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp8"), default="fp32")
    parser.add_argument("--vocabulary", type=int, default=512, help="entries of the vocabulary")
    parser.add_argument("--holdout-tokens", type=int, default=4_000, help="tokens that are scored twice a run")
    parser.add_argument("--runs", type=int, default=4)
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
