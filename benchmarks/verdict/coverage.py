"""How often does the verdict see a difference where there is none, and how often does its interval hold the true one?

Every case simulates experiments whose truth is known and judges them by the code that judges runs. Bits per byte of a run are the sum of
what its seed does (normal, a standard deviation an arm), what the documents do to the difference of the arms (cluster by cluster), and how
the documents answer that seed. Clusters are blocks of 100 documents with log-normal sizes, as a holdout has them; where tails are heavy, a
document's difference has Student's t with 3 degrees of freedom, and clusters may be single documents. False alarms are simulated
without a difference and counted at a nominal 5 %; coverage anew, with a planted difference.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Annotated, Literal
from zlib import crc32

import numpy as np
import typer

from tasks.records.verdict import Pairing
from tasks.verdict.paired import LN2, level_of_a_pair, paired_differences
from tasks.verdict.replicates import paired_by_seed

SEED = 2026
SIMULATIONS = 2_000
FEWER = 400  # simulations of the short form
AGAIN = 10  # times as many simulations decide about a case that is out of bounds
MOST, LEAST = 6.5, 2.5  # % of false alarms, at a nominal 5 %; the least where every arm has three seeds or more
SLICE = 200  # simulations judged at once; they share their resampling weights, slices do not
DRAWS = 600
BLOCK = 100  # documents of a cluster
PLANTED = 0.03
TAILS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "heavy": lambda random, shape: random.standard_t(3, shape) / np.sqrt(3),
    "skewed": lambda random, shape: (random.lognormal(0, 1, shape) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1)),
}


@dataclass(frozen=True)
class Case:
    """Arms with so many seeds each, the standard deviations that a seed, the documents and both together give to bits per byte."""

    seeds: tuple[int, ...]
    spreads: tuple[float, ...]
    documents: float = 0.0
    interaction: float = 0.0
    clusters: int = 40
    tails: str = "normal"
    single: bool = False
    """Whether clusters are single documents."""
    correlation: float = 0.0
    """Between arms, over the seeds they share."""
    pairing: Pairing = "none"
    unlike: Literal["", "unpaired", "the shorter"] = ""
    """What the verdict does not do with shared seeds: not pair them, or take the shorter of both intervals."""
    strata: int = field(default=1, repr=False)  # beside the seed of a case, which is made of the others
    """Parts of the documents; from two on their bands are judged, which hold together."""
    alike: float = field(default=0.0, repr=False)
    """The part of a seed's variance that moves all strata by the same."""

    @property
    def remark(self) -> str:
        """Why the case is not judged."""
        return "not what the verdict does" if self.unlike else "the verdict warns" if self.single else ""

    @property
    def least(self) -> float:
        """The fewest false alarms in %. Bands of strata whose seeds move them alike are wide, and may be."""
        return LEAST if min(self.seeds) >= 3 and self.strata == 1 else 0.0

    def __str__(self) -> str:
        parts = [" v ".join(map(str, self.seeds)), ":".join(f"{spread:g}" for spread in self.spreads)]
        if self.documents:
            parts.append(
                f"documents {self.documents:g} in {self.clusters}{' single' * self.single}{'' if self.tails == 'normal' else ' ' + self.tails}"
            )
        if self.interaction:
            parts.append(f"interaction {self.interaction:g}")
        if self.correlation or self.pairing != "none" or self.unlike:
            parts.append(f"correlation {self.correlation:g}, {self.unlike or self.pairing}")
        if self.strata > 1:
            parts.append(f"{self.strata} strata, {self.alike:g} of a seed alike")
        return ", ".join(parts)


SHARED: list[tuple[int, Pairing]] = [(2, "auto"), (2, "seed"), (3, "auto"), (4, "auto"), (8, "auto")]
GRID = {
    "seeds": [Case((n, n), (1, 1)) for n in (2, 3, 4, 8)],
    "unlike spreads": [Case((n, n), (1, spread)) for n in (2, 3, 4, 8) for spread in (0.5, 0.2)],
    "unequal numbers": [
        *(Case((2, 6), spreads) for spreads in ((1, 1), (3, 1), (1, 3))),
        *(Case((3, n), spreads) for n in (6, 8) for spreads in ((1, 1), (3, 1), (1, 3), (1, 5))),
        Case((2, 3), (3, 1)),
    ],
    "five arms, all pairs": [Case((n,) * 5, (1, 1, 0.2, 0.2, 0.2)) for n in (2, 3, 4)],
    "documents": [
        *(Case((3, 3), (0.1, 0.1), 1, clusters=c, tails=t) for c in (8, 12, 20, 100) for t in TAILS),
        *(Case((3, 3), (0.1, 0.1), 1, clusters=600, tails=tails, single=True) for tails in ("heavy", "skewed")),
    ],
    "both": [
        *(Case((n, n), (1, spread), 0.7) for n in (2, 3, 8) for spread in (1, 0.2)),
        *(Case((3, 3), (1, 1), 0.7, 0.5, clusters=c, tails="heavy") for c in (8, 20, 100)),
        *(Case((3, 3), (1, 1), documents) for documents in (0.3, 2)),
        Case((2, 6), (3, 1), 1),
        Case((3, 8), (1, 3), 1),
    ],
    "pairing": [
        *(
            Case((n, n), (1, 1), 0.2, 0.1, correlation=correlation, pairing=pairing)
            for n, pairing in SHARED
            for correlation in (0, 0.5, 0.95, -0.3)
        ),
        *(Case((n, n), (1, 0.2), correlation=0.95, pairing="auto") for n in (3, 8)),
        *(Case((3, 3), (1, 1), correlation=correlation, unlike="unpaired") for correlation in (0.5, 0.95, -0.3)),
        *(Case((n, n), (1, 1), correlation=c, unlike="the shorter") for n in (3, 4, 8) for c in (0, 0.5)),
    ],
    "strata, all bands": [
        Case((3, 3), (1, 1), 0.5, strata=12, alike=0.9),
        *(
            Case((n, n), (1, 1), 0.5, pairing="auto", strata=12, alike=alike)
            for n, alike in ((4, 0.9), (8, 0), (8, 0.9))
        ),
        Case((3, 3), (0.1, 0.1), 1, clusters=20, tails="skewed", strata=12),
    ],
}
SHORT = [
    Case((2, 2), (1, 0.2)),
    Case((2, 6), (3, 1)),
    Case((3,) * 5, (1, 1, 0.2, 0.2, 0.2)),
    Case((3, 3), (0.1, 0.1), 1, clusters=12, tails="skewed"),
    Case((3, 3), (1, 1), 0.7),
    Case((4, 4), (1, 1), 0.2, 0.1, correlation=0.95, pairing="auto"),
]
"""The cases of the short form, one of each group."""


def simulate(
    case: Case, difference: float, count: int, random: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """`count` experiments, one a stratum: nats of every arm (seeds, count, C), of which the first is worse by `difference`; bytes.

    An experiment of several strata is as many neighbors.
    """
    shape = (count, case.clusters, 1 if case.single else BLOCK)
    sizes = np.exp(random.normal(7.5, 1, shape))
    answers = TAILS[case.tails](random, shape)
    moves = (answers * sizes).sum(2) * (sizes.sum((1, 2)) / np.sqrt((sizes**2).sum((1, 2))))[:, None]
    documents = case.documents * moves
    sizes = sizes.sum(2)
    spread = case.interaction * np.sqrt(case.clusters)
    common = random.normal(size=(max(case.seeds), count, 1))
    arms = []
    for number, (seeds, sd) in enumerate(zip(case.seeds, case.spreads, strict=True)):
        share = np.sqrt(abs(case.correlation))
        sign = np.sign(case.correlation) if number else 1.0
        own = random.normal(size=(seeds, count, 1))
        if case.strata > 1:
            whole = random.normal(size=(seeds, count // case.strata, 1)).repeat(case.strata, axis=1)
            own = np.sqrt(case.alike) * whole + np.sqrt(1 - case.alike) * own
        own = np.sqrt(1 - share**2) * own
        runs = sd * (sign * share * common[:seeds] + own) + spread * random.normal(size=(seeds, *sizes.shape))
        arms.append(((difference if number == 0 else 0.0) + runs) * sizes + (documents if number == 0 else 0.0))
    return [arm * LN2 for arm in arms], sizes


def misses(case: Case, difference: float, arms: Sequence[np.ndarray], sizes: np.ndarray, seed: int) -> np.ndarray:
    """Whether an interval misses the truth, (experiments,): of any pair of arms, or any stratum, each at its adjusted level."""
    if case.strata > 1:
        paired = paired_by_seed(case.pairing, range(case.seeds[0]), range(case.seeds[1]))
        parts = (slice(start, start + case.strata) for start in range(0, len(sizes), case.strata))
        bands = [
            paired_differences(
                arms[0][:, part], arms[1][:, part], sizes[part], paired=paired, draws=DRAWS, seed=seed
            ).together(0.95)
            for part in parts
        ]
        return np.array([not ((band.low <= difference) & (difference <= band.high)).all() for band in bands])
    pairs = list(combinations(range(len(arms)), 2))
    missed = np.zeros(len(sizes), dtype=bool)
    for i, j in pairs:
        judged = partial(
            paired_differences,
            arms[i],
            arms[j],
            sizes,
            level=level_of_a_pair(0.95, len(arms)),
            draws=DRAWS,
            seed=seed,
        )
        found = judged(paired=paired_by_seed(case.pairing, range(case.seeds[i]), range(case.seeds[j])))
        low, high = found.low, found.high
        if case.unlike == "the shorter":
            other = judged(paired=True)
            take = other.high - other.low < high - low
            low, high = np.where(take, other.low, low), np.where(take, other.high, high)
        truth = difference if i == 0 else 0.0
        missed |= ~((low <= truth) & (truth <= high))
    return missed


def rate(case: Case, difference: float, simulations: int, first: int = 0) -> float:
    """How many of the simulated intervals miss the truth, in %. `first`: the number of the first simulation."""
    found = []
    for start in range(first, first + simulations, SLICE):
        random = np.random.default_rng([SEED, crc32(repr(case).encode()), start, int(difference != 0)])
        count = min(SLICE, first + simulations - start)
        arms, sizes = simulate(case, difference, count * case.strata, random)
        found.append(misses(case, difference, arms, sizes, start))
    return 100 * float(np.concatenate(found).mean())


def out_of_bounds(case: Case, alarms: float, slack: float = 0.0) -> bool:
    return not case.remark and not case.least - slack <= alarms <= MOST + slack


def measure(cases: Sequence[Case], simulations: int, workers: int) -> Iterator[tuple[float, float]]:
    """(false alarms in %, coverage in %) of each case."""
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            (pool.submit(rate, case, 0.0, simulations), pool.submit(rate, case, PLANTED, simulations)) for case in cases
        ]
        for alarms, missed in jobs:
            yield alarms.result(), 100 - missed.result()


def main(
    simulations: Annotated[int | None, typer.Option(min=1, help="Simulated experiments of a case.")] = None,
    short: Annotated[
        bool, typer.Option("--short", help="A case of each group, and bounds three errors wider.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Print false alarms and coverage of every case; exit status 1 if one is out of bounds.

    Of 2,000 simulations a rate of 5 % has a standard error of 0.5 %. A case out of bounds is simulated anew, ten times as often; both rates are
    printed, and the second decides.
    """
    started = time.monotonic()
    simulations = simulations or (FEWER if short else SIMULATIONS)
    slack = 300 * np.sqrt(0.05 * 0.95 / simulations) if short else 0.0
    cases = [("short", case) for case in SHORT] if short else [(name, c) for name, group in GRID.items() for c in group]
    print(f"seed {SEED}, {simulations:,} simulations a case, nominal 5 %\n")
    print("| group | arms: seeds, spreads | false alarms | coverage | |\n| --- | --- | ---: | ---: | --- |")
    failed = 0
    for (group, case), (alarms, covered) in zip(
        cases, measure([case for _, case in cases], simulations, workers), strict=True
    ):
        remark = case.remark
        if out_of_bounds(case, alarms, slack):
            more = rate(case, 0.0, AGAIN * simulations, first=simulations)
            bad = out_of_bounds(case, more, slack)
            failed += bad
            remark = f"{more:.1f} % of {AGAIN * simulations:,} others{': OUT OF BOUNDS' if bad else ''}"
        print(f"| {group} | {case} | {alarms:.1f} % | {covered:.1f} % | {remark} |", flush=True)
    print(f"\n{failed} out of bounds; {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if failed else 0)
