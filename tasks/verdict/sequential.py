r"""Looking more than once: levels for intervals that all hold together, and the decision read off them.

Whoever adds replicates until an interval excludes 0 has far more than 5 % false alarms. Here every look gets an interval of a level of
its own, so that the intervals of all looks hold the true difference with probability 1 - alpha: repeated confidence intervals
(Jennison and Turnbull, J. R. Statist. Soc. B 51, 1989). Every conclusion is read off the interval of the look:

    better, worse   the interval excludes 0
    equivalent      it lies within the margin, which is two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987),
                    each at half the look's error

So all wrong conclusions over all looks together have at most probability alpha, whatever the true difference is: "better" of equal
arms, "better" of the worse arm, and "equivalent" of arms further apart than the margin. Nothing depends on whether one really stops.

Levels. The error that may be spent by the look at n of at most N replicates (Lan and DeMets, Biometrika 70, 1983) is

    alpha(t) = 2 - 2 Phi(z_{1-alpha/2} / sqrt(t)),   t = n / N,

close to O'Brien and Fleming's boundary: little early, nearly all at the end. Looks need not be planned. Replicates added by hand are one
more look, and beyond N nothing is left to spend. Pocock's boundary, which spends early, was tried: with t statistics of few replicates it costs 12 to
15 points of power, and saves one or two replicates where differences are large (benchmarks/verdict/README.md).

The usual boundaries are those of a normal statistic with known variance, translated to the same p-value. With three replicates that
is not enough: variances are estimated anew at each look, which loosens the looks' correlation, and 5 % become 5.4 to 6.2 %. So levels are found
on simulated streams of the statistic itself, each at the p-value that spends what is due: paired replicates, or two samples of which one scatters
a fifth as much as the other, where Welch's p-values far below 5 % are worst. Samples that scatter alike, and documents, whose error
all looks share, spend less. `python -m benchmarks.verdict sequential` measures all of it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from tasks.records.stopping import Decision, Look, StoppingRule
from tasks.verdict.replicates import Spread

STREAMS = 200_000
SEED = 19
UNLIKE = 0.2
"""Spread of the second sample where replicates are not paired: of all ratios the one with the most false alarms."""
LEAST = 5e-4
"""A look's error below this is 0, and is left to later looks: the tails of simulated and resampled errors are not known that far out."""


def look_alpha(rule: StoppingRule, looks: Sequence[int], alpha: float = 0.05, *, paired: bool = False) -> float:
    """Two-sided error of the interval at the last of `looks`, the replicates of an arm at each look so far.

    `alpha`: error over all looks, which for one of several pairs is its share. `paired`: whether the interval of every look is
    paired. 0 where nothing can be concluded: too early, or beyond `rule.max_replicates`. A count that is listed twice is one
    look, and one below 2 none.
    """
    counts = tuple(sorted({count for count in looks if count > 1}))
    return _alphas(counts, rule.max_replicates, alpha, paired)[-1] if counts else 0.0


def decide(rule: StoppingRule, looks: Sequence[Look], *, last: bool = False) -> Decision:
    """What the looks at one pair of arms conclude. The first look that concludes something decides: later ones do not undo it.

    `last`: no further round is possible, such as for want of money.
    """
    for look in looks:
        if look.low is None or look.high is None:
            continue
        if rule.margin is not None and -rule.margin < look.low and look.high < rule.margin:
            return "equivalent"
        if look.high < 0:
            return "better"
        if look.low > 0:
            return "worse"
    ended = last or (bool(looks) and looks[-1].replicates >= rule.max_replicates)
    return "undecided" if ended else "go on"


@lru_cache
def false_alarms(looks: tuple[int, ...], alpha: float = 0.05) -> float:
    """Probability that one of these looks is a false alarm when each has the error `alpha`, as without a rule.

    `looks`: rising numbers of replicates, 2 or more. (Armitage, McPherson and Rowe, J. R. Statist. Soc. A 132, 1969, for normal data.)
    """
    alarms = np.zeros(STREAMS, dtype=bool)
    for p in _p_values(looks, paired=True):
        alarms |= p <= alpha
    return float(alarms.mean())


def spent(part: float, alpha: float) -> float:
    """Error that may be spent when `part` (0 to 1) of the replicates are there."""
    return float(2 * ndtr(ndtri(alpha / 2) / np.sqrt(min(part, 1.0))))


@lru_cache
def _alphas(looks: tuple[int, ...], most: int, alpha: float, paired: bool) -> tuple[float, ...]:
    """Error of each look: the p-value below which fall as many streams as spend what is due by then."""
    undecided = np.ones(STREAMS, dtype=bool)
    found: list[float] = []
    for count, p in zip(looks, _p_values(looks, paired), strict=True):
        due = round(spent(count / most, alpha) * STREAMS) - int((~undecided).sum())
        level = float(np.partition(p[undecided], due)[due]) if due > 0 else 0.0
        found.append(level if level >= LEAST else 0.0)
        undecided &= p > found[-1]
    return tuple(found)


def _p_values(looks: Sequence[int], paired: bool) -> Iterator[np.ndarray]:
    """Two-sided p-values at each look where arms are equal, (streams,)."""
    random = np.random.default_rng(SEED)
    scales = np.array([1.0] if paired else [1.0, UNLIKE])[:, None]
    total, squares = np.zeros((2, len(scales), STREAMS))
    for count in range(1, looks[-1] + 1):
        drawn = scales * random.normal(size=total.shape)
        total += drawn
        squares += drawn**2
        if count in looks:
            spread = Spread((squares - total**2 / count) / (count - 1), np.full(len(scales), count))
            yield 2 * stdtr(spread.freedom, -np.abs(total.sum(0) / count) / spread.error)
