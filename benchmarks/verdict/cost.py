"""What a verdict costs: GPU seconds until two arms that differ by 0.005 bits per byte are told apart, 4 times in 5 at an error of 5 %.

    upstream, nanochat   the fewest replicates whose one look has that power, a process a run
    quiet                replicates in rounds by the project's stopping rule, of the fewest at most that have that power; one process
                         trains them all

How many replicates that takes depends on the standard deviation between runs alone, in units of the difference. `cost.json` has what was
measured, with where it comes from. A standard deviation of few runs is itself uncertain: as of normal values its square is drawn from
the scaled inverse chi-square distribution, and the intervals are the middle 95 % of what follows. Streams that stop are simulated
as in `sequential`, by the code that decides about runs, up to the 64 replicates that a comparison may have; beyond, they
take the same part of a single look's replicates as there.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.verdict.coverage import SEED, Case
from benchmarks.verdict.sequential import FEW, Stream, run
from tasks.records.stopping import MOST_REPLICATES, StoppingRule
from tasks.verdict.paired import detectable_difference

MEASURED = Path(__file__).with_name("cost.json")
POWER = 0.8
LOOKS = 8
"""Rounds are so long that there are about so many."""
ROOM = 0.9
"""Part of a comparison's replicates at most that a single look may need, for rounds with the same power need a few more."""
STREAMS = 1_000
DRAWS = 20_000
RATIOS = np.geomspace(0.25, 5, 9)
"""Standard deviations, in units of the difference, at which streams are simulated; between them the replicates are interpolated."""


@dataclass(frozen=True)
class Row:
    """What one way of training was measured to do at one depth."""

    depth: int
    way: str
    sd: float | None
    """Of the bits per byte of a run; with `pairs`, of the difference between two arms' runs of one seed."""
    runs: int
    """From which it is estimated, or pairs."""
    cold: float | None
    """GPU seconds of a run in a process of its own."""
    warm: float | None = None
    """The same in a process that has trained before; None: every run has a process of its own."""
    pairs: bool = False

    def drawn(self, random: np.random.Generator) -> np.ndarray:
        """What the standard deviation may be, (DRAWS,); NaN where one run or none was measured."""
        if self.sd is None or self.runs < 2:
            return np.full(DRAWS, np.nan)
        freedom = self.runs - 1
        deviations: np.ndarray = self.sd * np.sqrt(freedom / random.chisquare(freedom, DRAWS))
        return deviations

    def replicates(self, deviations: np.ndarray, difference: float) -> np.ndarray:
        """Runs of an arm until it is told from the other, for each standard deviation."""
        wanted = single if self.warm is None else stopped
        known = np.array([wanted(ratio, self.pairs) for ratio in RATIOS])
        ratios = np.clip(deviations / difference, RATIOS[0], None)
        inside: np.ndarray = np.exp(np.interp(np.log(ratios), np.log(RATIOS), np.log(known)))
        return inside * np.maximum(1.0, ratios / RATIOS[-1]) ** 2

    def seconds(self, replicates: np.ndarray) -> np.ndarray:
        """GPU seconds of so many runs of each of two arms."""
        if self.cold is None:
            return np.full_like(replicates, np.nan)
        start = 0.0 if self.warm is None else self.cold - self.warm
        return start + 2 * replicates * (self.cold if self.warm is None else self.warm)


@lru_cache
def single(ratio: float, pairs: bool) -> float:
    """Replicates of an arm whose one look has the power, where the standard deviation is `ratio` times the difference."""
    variances = [ratio**2] if pairs else [ratio**2] * 2
    low, high = 1, 2
    while detectable_difference(0.0, variances, high, power=POWER) > 1:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = detectable_difference(0.0, variances, middle, power=POWER) <= 1
        low, high = (low, middle) if enough else (middle, high)
    return float(high)


@lru_cache
def stopped(ratio: float, pairs: bool) -> float:
    """Replicates of an arm when a comparison in rounds stops, on average, by the rule of fewest replicates at most that has the power."""
    most = max(3, int(single(ratio, pairs)))
    if most > ROOM * MOST_REPLICATES:
        last = max(each for each in RATIOS if single(each, pairs) <= ROOM * MOST_REPLICATES)
        return stopped(last, pairs) / single(last, pairs) * single(ratio, pairs)
    spread = ratio / np.sqrt(2) if pairs else ratio
    while True:
        rule = StoppingRule(max_replicates=most, first_look=3, round=max(1, most // LOOKS))
        arms = Case((most, most), (1, 1), clusters=FEW, pairing="auto" if pairs else "none")
        stream = Stream(arms, rule.looks)
        found = run(Stream(arms, rule.looks, effect=1 / spread / stream.unit), STREAMS)
        if found["worse"] >= POWER * STREAMS:
            return found["replicates"] / STREAMS
        most += max(1, most // 20)


def main(
    difference: Annotated[float, typer.Option(min=0, help="Between the arms, in bits per byte.")] = 0.005,
    rows: Annotated[Path, typer.Option(help="What was measured: a file like cost.json.")] = MEASURED,
) -> None:
    """Print the GPU seconds of a verdict by each way, and the part that they are of upstream's."""
    started = time.monotonic()
    measured = json.loads(rows.read_text())
    about = f"{measured['tokens']:,} tokens a run on one {measured['device']}"
    print(
        f"Two arms {difference:g} bits per byte apart, told apart with {100 * POWER:g} % power at 5 %; {about}; seed {SEED}\n"
    )
    heads = ("depth", "way", "sd", "runs measured", "s a run", "replicates an arm", "GPU seconds", "of upstream's")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * 2}{' ---: |' * (len(heads) - 2)}")
    random = np.random.default_rng(SEED)
    upstream: dict[int, np.ndarray] = {}
    for each in measured["rows"]:
        found = Row(**{name: value for name, value in each.items() if name != "from"})
        if found.sd is None or found.cold is None:
            print(f"| d{found.depth} | {found.way} | not measured | | | | | |")
            continue
        # The estimate first, then what it may be.
        replicates = found.replicates(np.append(found.sd, found.drawn(random)), difference)
        seconds = found.seconds(replicates)
        upstream.setdefault(found.depth, seconds)
        part = "" if found.way == "upstream" else _interval(upstream[found.depth] / seconds, _part)
        paired = " in pairs" if found.pairs else ""
        cells = (
            f"d{found.depth}",
            found.way,
            f"{found.sd:.4f}{paired}",
            str(found.runs),
            f"{found.cold if found.warm is None else found.warm:.1f}",
            _interval(replicates, "{:,.0f}".format),
            _interval(seconds, "{:,.0f}".format),
            part,
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")


def _part(times: float) -> str:
    """One part in so many: 1/53, or 1.8 x where it is no part."""
    return f"1/{times:,.0f}" if times >= 10 else f"1/{times:.1f}" if times >= 1 else f"{1 / times:.1f} x"


def _interval(values: np.ndarray, form: Callable[[float], str]) -> str:
    """The first value, which is the estimate, and the middle 95 % of the others."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return f"{form(values[0])} ({form(low)} to {form(high)})"
