"""How often does the interval of "x % fewer tokens" hold the share that is true?

Curves fall by SLOPE bits per byte a unit of ln(tokens), and the worse arm ends above the better one's by what the true share is worth. Where a run
lies is the sum of what its seed does to all of its curve (standard deviation 1 for the better arm) and of what passes within it (`wobble`, independent at
each of 10 evaluations). Both arms have equally many runs; `documents` is an error that the difference has at every evaluation.
"""

import time
from dataclasses import dataclass
from typing import Annotated
from zlib import crc32

import numpy as np
import typer

from benchmarks.verdict.coverage import AGAIN, LEAST, MOST, SEED, SIMULATIONS
from tasks.verdict.savings import tokens_saved

TOKENS = np.linspace(0.1, 1.0, 10) * 1e9
SLOPE = 100.0
CLUSTERS = 40


@dataclass(frozen=True)
class Savings:
    """Runs an arm, the true share of tokens that is saved, spread of the worse arm, and the errors beside the seed's."""

    runs: int
    share: float
    spread: float = 1.0
    wobble: float = 0.0
    documents: float = 0.0
    correlation: float = 0.0
    paired: bool = False

    @property
    def least(self) -> float:
        """The fewest misses in %, as of intervals of differences."""
        return LEAST if self.runs >= 3 else 0.0

    def __str__(self) -> str:
        parts = [f"{self.runs} v {self.runs}, 1:{self.spread:g}", f"{100 * self.share:.0f} % saved"]
        parts += [f"wobble {self.wobble:g}"] * (self.wobble > 0) + [f"documents {self.documents:g}"] * (
            self.documents > 0
        )
        return ", ".join(parts + [f"correlation {self.correlation:g}, paired"] * self.paired)


GRID = [
    *(Savings(runs, share) for runs in (2, 3, 8) for share in (0.1, 0.4)),
    *(Savings(runs, 0.4, spread=0.2) for runs in (3, 8)),
    *(Savings(runs, 0.4, wobble=1) for runs in (3, 8)),
    *(Savings(runs, 0.4, correlation=0.9, paired=True) for runs in (3, 8)),
    *(Savings(3, 0.4, documents=documents) for documents in (0.5, 2)),
]


def misses(case: Savings, simulations: int, first: int = 0) -> float:
    """How many of the simulated intervals miss the true share, in %. `first`: the number of the first simulation."""
    random = np.random.default_rng([SEED, crc32(repr(case).encode()), first])
    curve = -SLOPE * np.log(TOKENS / TOKENS[-1])
    above = -SLOPE * np.log(1 - case.share)
    missed = 0
    for _ in range(simulations):
        common, own = random.normal(size=case.runs), random.normal(size=case.runs)
        other = case.spread * (np.sqrt(case.correlation) * common + np.sqrt(1 - case.correlation) * own)
        better = np.sqrt(case.correlation) * common + np.sqrt(1 - case.correlation) * random.normal(size=case.runs)
        documents = case.documents * random.normal()
        wobbles = case.wobble * random.normal(size=(case.runs, len(TOKENS)))
        runs = curve + better[:, None] + wobbles + documents
        worse = above + other + case.wobble * random.normal(size=case.runs)
        found = tokens_saved(
            [(TOKENS, run) for run in runs],
            runs[:, -1],
            worse,
            paired=case.paired,
            documents=case.documents,
            clusters=CLUSTERS,
        )
        low, high = found.low or 0.0, 1.0 if found.high is None else found.high
        missed += not low <= case.share <= high
    return 100 * missed / simulations


def out_of_bounds(case: Savings, missed: float) -> bool:
    return not case.least <= missed <= MOST


def main(simulations: Annotated[int, typer.Option(min=1, help="Simulated pairs of a case.")] = SIMULATIONS) -> None:
    """Print how many intervals of saved tokens miss the truth; exit status 1 if a case is out of the bounds of `coverage`."""
    started, failed = time.monotonic(), 0
    print(f"seed {SEED}, {simulations:,} simulations a case, nominal 5 %\n")
    print("| runs: numbers, spreads | missed | |\n| --- | ---: | --- |")
    for case in GRID:
        missed, remark = misses(case, simulations), ""
        if out_of_bounds(case, missed):
            more = misses(case, AGAIN * simulations, first=simulations)
            failed += (bad := out_of_bounds(case, more))
            remark = f"{more:.1f} % of {AGAIN * simulations:,} others{': OUT OF BOUNDS' if bad else ''}"
        print(f"| {case} | {missed:.1f} % | {remark} |", flush=True)
    print(f"\n{failed} out of bounds; {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if failed else 0)
