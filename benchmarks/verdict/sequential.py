"""How often does a comparison that stops when it is clear end wrong, what does it find, and how many runs does it take?

Every case simulates streams of replicates whose truth is known (`coverage.simulate`), looks at them as a stopping rule says, and decides
by the code that decides about runs. The standard deviation of an arm's run is 1. The difference is 0, the margin, or a multiple of
the one that a single look at the most replicates would find 4 times in 5: "effect".
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated
from zlib import crc32

import numpy as np
import typer
from scipy.special import stdtrit

from benchmarks.verdict.coverage import SEED, Case, simulate
from tasks.records.stopping import Decision, Look, StoppingRule
from tasks.verdict.paired import bits_per_byte, detectable_difference, level_of_a_pair, paired_differences
from tasks.verdict.replicates import Spread, paired_by_seed, samples_of
from tasks.verdict.sequential import decide, look_alpha

STREAMS = 10_000
WITH_DOCUMENTS = 5  # a fifth of the streams where documents are resampled, which takes the time
FEWER = 1_000  # streams of the short form
ERROR = 5.0  # % of wrong conclusions over all looks, at most
SLICE = 200  # streams judged at once


@dataclass(frozen=True)
class Stream:
    """Arms as in `coverage`, with `most` replicates, a stopping rule's looks, and what is true."""

    arms: Case
    looks: tuple[int, ...]
    effect: float = 0.0
    """The first arm is worse than the others by so many times the difference that a single look finds 4 times in 5."""
    margin: float | None = None
    """In the same unit."""
    at_margin: bool = False
    """Whether the difference is the margin instead."""
    most: int | None = None
    """The rule's replicates at most; None: those of the last look."""

    @property
    def unit(self) -> float:
        """The difference that a single look at the last look's replicates finds with a probability of 80 %."""
        n, spreads = self.looks[-1], self.arms.spreads[:2]
        common = 2 * self.arms.correlation * spreads[0] * spreads[1]
        variances = (
            [spreads[0] ** 2 + spreads[1] ** 2 - common] if self.paired(n) else [spread**2 for spread in spreads]
        )
        level = level_of_a_pair(0.95, len(self.arms.seeds))
        return detectable_difference(self.arms.documents, variances, n, level)

    def paired(self, replicates: int) -> bool:
        return paired_by_seed(self.arms.pairing, range(replicates), range(replicates))

    def share(self, streams: int) -> int:
        """How many of so many streams are simulated."""
        return streams // WITH_DOCUMENTS if self.arms.documents else streams

    @property
    def difference(self) -> float:
        return self.unit * ((self.margin or 0.0) if self.at_margin else self.effect)

    @property
    def rule(self) -> StoppingRule:
        return StoppingRule(
            margin=self.margin * self.unit if self.margin else None,
            max_replicates=self.most or self.looks[-1],
            first_look=self.looks[0],
        )

    def wrong(self, pair: tuple[int, int]) -> set[Decision]:
        """The conclusions about a pair of arms that are not true: only the first arm differs from others."""
        if pair[0] > 0 or not self.difference:
            return {"better", "worse"}
        apart = self.rule.margin is not None and self.difference >= self.rule.margin
        return {"better", "equivalent"} if apart else {"better"}

    def __str__(self) -> str:
        parts = [str(replace(self.arms, seeds=self.arms.seeds[:2])) if len(self.arms.seeds) == 2 else str(self.arms)]
        looked = [str(n) for n in self.looks]
        if self.looks == tuple(range(self.looks[0], self.looks[-1] + 1)) and len(looked) > 2:
            looked = [f"{self.looks[0]} to {self.looks[-1]}"]
        parts.append(f"looks {' '.join(looked)}{f' of {self.most}' if self.most else ''}")
        if self.margin:
            parts.append(f"margin {self.margin:g}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Outcome:
    """What became of the streams: shares in %, and means."""

    decisions: dict[str, float]
    wrong: float
    """Streams with a wrong conclusion about any pair."""
    replicates: float
    """Of an arm when it stopped, mean."""
    fixed: float
    """Streams that a single look at the most replicates finds different."""
    covered: float
    """Streams in which the intervals of all looks hold the truth."""
    exaggeration: float
    """Mean estimate of the first pair where it ended as different, as a multiple of the truth; NaN without a difference."""


TO_8 = tuple(range(3, 9))
FEW = 8  # clusters, which do not matter where documents have no error
EQUAL = Case((8, 8), (1, 1), clusters=FEW)
PAIRED = Case((8, 8), (1, 1), clusters=FEW, correlation=0.9, pairing="auto")
UNLIKE = Case((8, 8), (1, 0.2), clusters=FEW)
LONG = Case((16, 16), (1, 1), clusters=FEW)
DOCUMENTS = Case((8, 8), (1, 1), 0.5)
FIVE = Case((8,) * 5, (1, 1, 0.2, 0.2, 0.2), clusters=FEW)
GRID = {
    "equal arms": [
        Stream(EQUAL, TO_8),
        Stream(EQUAL, (2, 3, 4)),
        Stream(EQUAL, tuple(range(2, 9))),
        Stream(LONG, tuple(range(3, 17))),
        Stream(EQUAL, (4, 6, 8)),
        Stream(EQUAL, (3, 4), most=8),
        Stream(UNLIKE, TO_8),
        Stream(UNLIKE, tuple(range(2, 9))),
        Stream(Case((8, 8), (1, 0.1), clusters=FEW), TO_8),
        Stream(PAIRED, TO_8),
        Stream(replace(PAIRED, correlation=0), TO_8),
        Stream(replace(PAIRED, correlation=-0.3), TO_8),
        Stream(Case((8,) * 3, (1, 1, 1), clusters=FEW), TO_8),
        Stream(FIVE, TO_8),
        Stream(DOCUMENTS, TO_8),
        Stream(Case((8, 8), (0.1, 0.1), 1, clusters=20, tails="skewed"), TO_8),
    ],
    "different arms": [
        *(Stream(case, TO_8, effect=effect) for case in (EQUAL, UNLIKE, PAIRED) for effect in (0.5, 1, 2, 4)),
        Stream(LONG, tuple(range(3, 17)), effect=1),
        Stream(LONG, tuple(range(3, 17)), effect=4),
        Stream(FIVE, TO_8, effect=2),
        Stream(DOCUMENTS, TO_8, effect=1),
    ],
    "equivalence": [
        *(Stream(case, TO_8, margin=margin) for case in (EQUAL, PAIRED) for margin in (1, 2)),
        *(Stream(case, TO_8, margin=1, at_margin=True) for case in (EQUAL, UNLIKE, PAIRED, DOCUMENTS)),
        Stream(EQUAL, TO_8, margin=2, at_margin=True),
        Stream(EQUAL, TO_8, margin=2, effect=1),
    ],
}
SHORT = [
    Stream(EQUAL, TO_8),
    Stream(PAIRED, TO_8, effect=2),
    Stream(FIVE, TO_8),
    Stream(UNLIKE, TO_8, margin=2, at_margin=True),
]
"""The short form: no errors of documents, whose resampling takes the time."""


def intervals(
    stream: Stream, a: np.ndarray, b: np.ndarray, sizes: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(estimate, low, high) of each stream, (streams,). Without an error of documents the interval is Student's own."""
    paired = stream.paired(len(a))
    if stream.arms.documents:
        parts = [
            paired_differences(
                a[:, part], b[:, part], sizes[part], paired=paired, level=1 - alpha, seed=int(part.start or 0)
            )
            for part in (slice(start, start + SLICE) for start in range(0, len(sizes), SLICE))
        ]
        found = [np.concatenate([getattr(part, name) for part in parts]) for name in ("estimate", "low", "high")]
        return found[0], found[1], found[2]
    samples = samples_of(bits_per_byte(a, sizes), bits_per_byte(b, sizes), paired=paired)
    spread = Spread.of(samples)
    estimate = sum(sample.mean(0) for sample in samples)
    reach = stdtrit(spread.freedom, 1 - alpha / 2) * spread.error
    return estimate, estimate - reach, estimate + reach


def run(stream: Stream, streams: int, first: int = 0) -> Counter[str]:
    """Counts over `streams` simulated streams: the parts of an `Outcome` before they are divided. `first`: number of the first one."""
    random = np.random.default_rng([SEED, crc32(repr(stream).encode()), first])
    arms, sizes = simulate(stream.arms, stream.difference, streams, random)
    pairs = list(combinations(range(len(arms)), 2))
    error = 1 - level_of_a_pair(0.95, len(arms))
    looks: list[list[list[Look]]] = [[[] for _ in pairs] for _ in range(streams)]
    estimates, covered = np.zeros((len(stream.looks), streams)), np.ones(streams, dtype=bool)
    for number, count in enumerate(stream.looks):
        paired = all(stream.paired(each) for each in stream.looks[: number + 1])
        alpha = look_alpha(stream.rule, stream.looks[: number + 1], error, paired=paired)
        for place, (i, j) in enumerate(pairs):
            if alpha:
                estimate, low, high = intervals(stream, arms[i][:count], arms[j][:count], sizes, alpha)
                truth = stream.difference if i == 0 else 0.0
                covered &= (low <= truth) & (truth <= high)
                if place == 0:
                    estimates[number] = estimate
            for each in range(streams):
                ends = (float(low[each]), float(high[each])) if alpha else (None, None)
                looks[each][place].append(Look(replicates=count, low=ends[0], high=ends[1]))
    _, low, high = intervals(stream, arms[0], arms[1], sizes, error)
    found: Counter[str] = Counter(fixed=int(((low > 0) | (high < 0)).sum()), covered=int(covered.sum()))
    for each, seen in enumerate(looks):
        decisions = [decide(stream.rule, pair, last=True) for pair in seen]
        found[decisions[0]] += 1
        found["wrong"] += any(end in stream.wrong(pair) for pair, end in zip(pairs, decisions, strict=True))
        stopped = [stop(stream.rule, pair) for pair in seen]
        found["replicates"] += stream.looks[max(stopped)]
        if decisions[0] in ("better", "worse") and stream.difference:
            found["ended"] += 1
            found["estimates"] += estimates[stopped[0], each] / stream.difference
    return found


def stop(rule: StoppingRule, looks: Sequence[Look]) -> int:
    """Number of the look at which a comparison of one pair stops."""
    return next((n for n in range(len(looks)) if decide(rule, looks[: n + 1]) != "go on"), len(looks) - 1)


def outcome(found: Counter[str], streams: int) -> Outcome:
    return Outcome(
        decisions={name: 100 * found[name] / streams for name in ("better", "worse", "equivalent", "undecided")},
        wrong=100 * found["wrong"] / streams,
        replicates=found["replicates"] / streams,
        fixed=100 * found["fixed"] / streams,
        covered=100 * found["covered"] / streams,
        exaggeration=found["estimates"] / found["ended"] if found["ended"] else float("nan"),
    )


def out_of_bounds(wrong: float, streams: int) -> bool:
    """Whether more than 5 % are wrong, beyond twice the error of the simulation."""
    return wrong > ERROR + 200 * float(np.sqrt(0.05 * 0.95 / streams))


def main(
    streams: Annotated[int | None, typer.Option(min=1, help="Simulated streams of a case.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Four cases without documents, 1,000 streams each.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Print how streams of replicates end; exit status 1 if more than 5 % are wrong, beyond the simulation's error."""
    started = time.monotonic()
    streams = streams or (FEWER if short else STREAMS)
    cases = [("short", each) for each in SHORT] if short else [(name, each) for name, of in GRID.items() for each in of]
    step = min(streams, 1_000)
    print(f"seed {SEED}, {streams:,} streams a case, a fifth with documents; error over all looks 5 %\n")
    heads = (
        "group",
        "arms and looks",
        "truth",
        "wrong",
        "better or worse",
        "equivalent",
        "undecided",
        "replicates",
        "of",
    )
    heads = (*heads, "single look", "all intervals hold", "estimate at the stop")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * 3}{' ---: |' * (len(heads) - 3)}")
    failed = 0
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            [pool.submit(run, each, step, start) for start in range(0, each.share(streams), step)] for _, each in cases
        ]
        for (group, stream), parts in zip(cases, jobs, strict=True):
            total = sum((part.result() for part in parts), Counter[str]())
            found = outcome(total, step * len(parts))
            failed += (bad := out_of_bounds(found.wrong, step * len(parts)))
            print(_row(group, stream, found) + (" OUT OF BOUNDS" if bad else ""), flush=True)
    print(f"\n{failed} out of bounds; {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if failed else 0)


def _row(group: str, stream: Stream, found: Outcome) -> str:
    truth = "the margin" if stream.at_margin else f"effect {stream.effect:g}" if stream.effect else "equal"
    ends = found.decisions
    shown = [f"{found.wrong:.1f} %", f"{ends['better'] + ends['worse']:.1f} %", f"{ends['equivalent']:.1f} %"]
    shown += [f"{ends['undecided']:.1f} %", f"{found.replicates:.1f}", str(stream.looks[-1]), f"{found.fixed:.1f} %"]
    shown += [f"{found.covered:.1f} %", "" if np.isnan(found.exaggeration) else f"{found.exaggeration:.2f}"]
    return f"| {group} | {stream} | {truth} | {' | '.join(shown)} |"
