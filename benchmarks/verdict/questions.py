"""How many replicates tell a junk arm by questions? By bits of right answers, and by accuracy. `python -m benchmarks.verdict questions FOLDER`

Two arms of the pool of `real`, in which a third of the documents are junk (their letters are shuffled): the best rated documents, all of them text, and the
worst rated, all junk. Two-layer models, real trainings and the bundle of questions, by the code of every comparison. Then, from the real answers: of random
subsets with so many replicates an arm, the share whose 95 % interval excludes 0 on the right side, on bits and on either accuracy. README.md has what was measured.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.verdict.planted import SEED, documentation, small_arm, small_pool, small_training
from benchmarks.verdict.real import Aloud, pool_of
from flows.comparison import run_comparison
from flows.sequence import Steps
from tasks.records.layout import REPORT, RunFolder
from tasks.spec import DRAWS, Questions
from tasks.store.root import Root
from tasks.verdict.asked import sum_answers
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.paired import LN2, paired_differences

TRAINING = small_training(sequence_length=128, batch_tokens=1_024, tokens=98_304, recipe="quiet", eval_every=96)
SHARE = 0.3
CHARACTERS = 1_500  # of each document
SUBSETS = 200
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What one measure is computed from: values (runs, 1, C) of the better arm and of the other, and weights (1, C)."""


def comparison(source: Path, replicates: int) -> ComparisonSpec:
    """Text against junk, judged by the bundle."""
    arms = [small_arm(name, select, SHARE) for name, select in (("good", "top"), ("junk", "bottom"))]
    return ComparisonSpec(
        "questions",
        small_pool("junk", source, 80),
        arms,
        range(1, 1 + replicates),
        TRAINING,
        redraw=DRAWS,
        target="questions/bundle",
        questions=[Questions()],
    )


def shares(sums: Sums, counts: Sequence[int], better: int) -> dict[int, float]:
    """{replicates an arm: share of random subsets whose interval excludes 0 on the better side}; `better`: the sign there."""
    a, b, sizes = sums
    dice, found = np.random.default_rng(SEED), {}
    for count in counts:
        hits = 0
        for number in range(SUBSETS):
            ours, theirs = (arm[dice.choice(len(arm), count, replace=False)] for arm in (a, b))
            pair = paired_differences(ours, theirs, sizes, draws=1_000, seed=number)
            hits += bool(pair.low[0] > 0) if better > 0 else bool(pair.high[0] < 0)
        found[count] = hits / SUBSETS
    return found


def measures(root: Root, arms: Mapping[str, Sequence[str]], asked: str) -> dict[str, tuple[Sums, int]]:
    """{measure: its sums, and the sign of a difference in favor of the first arm}."""
    results = {label: [root.open(RunFolder(run).questions(asked)) for run in runs] for label, runs in arms.items()}
    (_, sums), accuracies = sum_answers(results, asked)
    good, junk = arms
    found: dict[str, tuple[Sums, int]] = {
        "bits": ((sums.nats[good][:, :1], sums.nats[junk][:, :1], sums.sizes[:1]), -1)
    }
    for i, name in enumerate(("accuracy", "accuracy per character")):
        rows = [LN2 * accuracies.right[label][:, i : i + 1] for label in (good, junk)]
        found[name] = (rows[0], rows[1], accuracies.sizes[i : i + 1]), 1
    return found


def main(
    folder: Annotated[Path, typer.Argument(help="Where to work; a second call goes on there.")], replicates: int = 6
) -> None:
    """Train both arms, and print which share of subsets tells them apart (exit status 1 unless bits need fewer replicates)."""
    started = time.monotonic()
    texts = documentation(folder, CHARACTERS)
    source = pool_of(folder / "junk", texts)
    root = Root(folder / "root")
    judged = run_comparison(root, comparison(source, replicates), Aloud(root, Steps()))
    (pair,) = judged.verdict.comparisons
    counts = [count for count in (2, 3, 4, 6, 8, 12, 16) if count <= replicates]
    apart = {}
    for name, (sums, better) in measures(root, judged.plan.runs_by_arm, judged.verdict.questions[0]).items():
        apart[name] = shares(sums, counts, better)
    needed = {name: next((count for count in counts if found[count] >= 0.8), None) for name, found in apart.items()}
    fewer = needed["bits"] is not None and all(
        other is None or other > needed["bits"] for name, other in needed.items() if name != "bits"
    )
    print(
        json.dumps(
            {
                "sentence": pair.sentence,
                "questions": pair.questions[0].model_dump(),
                "share of subsets told apart, by replicates an arm": apart,
                "replicates for 4 in 5": needed,
                "bits need fewer": fewer,
                "report": str(judged.made.path / REPORT),
                "seconds": round(time.monotonic() - started),
            },
            indent=1,
        )
    )
    raise SystemExit(0 if fewer and pair.better == "good" else 1)
