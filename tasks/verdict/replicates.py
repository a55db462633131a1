"""What a seed does to a difference: the samples it is a sum of, their variances, and the degrees of freedom behind those.

Unpaired, the difference of two arms is the sum of two independent sample means, of a and of -b. Paired by seed, it is the mean of one
sample, of a_r - b_r for each seed r. Everything below takes a list of such samples and does not ask which of the two it is.

Degrees of freedom. Each sample g has its own variance s_g^2 with f_g = n_g - 1 degrees of freedom: arms need not scatter alike, and
no arm outside the pair counts. The variance of the difference, sum v_g with v_g = s_g^2 / n_g, has by Satterthwaite (Biometrics
Bulletin 2, 1946; Welch, Biometrika 34, 1947)

    nu = 1 / sum_g w_g^2 / f_g,    w_g proportional to v_g,

which is too large where the smaller sample has the larger variance and happens to show a small one: with 2 against 6 runs and spreads
of 3 : 1 a nominal 5 % becomes 11 %. Hence w_g is proportional to v_g / f_g^1.5 here: a variance known from few runs weighs more than its
estimate says. With equal numbers this is Welch's nu. The exponent was found by simulation: at 1, two against six runs still reach 7 %;
at 2, three against eight fall to 2 % (`python -m benchmarks.verdict coverage`).

Pairing. Arms that share a seed share what it decides. If that correlates their scores, pairing takes the common part out. If it
does not, pairing halves the degrees of freedom for nothing. Simulated with seeds' error alone (n seeds an arm, equal spreads):

    n                                              3      4      8
    width, paired : unpaired, correlation 0        1.23   1.15   1.06
                                         0.5       0.90   0.83   0.76
                                         0.95      0.33   0.29   0.25
    false alarms in %, unpaired, at -0.3           5.4    6.6    8.0
                                     0.5           1.4    1.3    1.0
                       shorter of both, at -0.3    7.7    8.3    8.7
                                            0      6.7    6.8    6.5

Only the paired interval has its level whatever the correlation is, and it costs little where there is none. Whoever takes the shorter of
both has neither. So the rule looks at the design alone, never at the scores: see `paired_by_seed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tasks.errors import InputError
from tasks.records.verdict import FEWEST_PAIRS, Pairing

CAUTION = 1.5
Freedom = int | np.ndarray


@dataclass(frozen=True)
class Spread:
    """Variances of one run's score within each of G samples, (G, S), and the samples' sizes, (G,)."""

    variances: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[np.ndarray]) -> "Spread":
        """`samples`: the scores of each, (n, S). A sample of one has the variance NaN."""
        variances = [s.var(0, ddof=1) if len(s) > 1 else np.full(s.shape[1], np.nan) for s in samples]
        return cls(np.stack(variances), np.array([len(s) for s in samples]))

    @property
    def known(self) -> bool:
        """Whether every sample has two runs or more."""
        return bool((self.counts > 1).all())

    @property
    def of_means(self) -> np.ndarray:
        """Variances of the samples' means, (G, S)."""
        found: np.ndarray = self.variances / self.counts[:, None]
        return found

    @property
    def error(self) -> np.ndarray:
        """Standard error of the difference of means, (S,)."""
        found: np.ndarray = np.sqrt(self.of_means.sum(0))
        return found

    @property
    def freedom(self) -> np.ndarray:
        """Degrees of freedom behind the error, (S,)."""
        return effective_freedom(list(self.of_means), list(self.counts - 1), CAUTION)


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of the scores of two arms over their common seeds, with a 95 % interval (NaN below 4 seeds)."""

    estimate: float
    low: float
    high: float


def paired_by_seed(pairing: Pairing, a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether the paired interval decides between arms with these seeds.

    "auto": when both have the same seeds, `FEWEST_PAIRS` or more: with two, a paired interval is too wide to be of use. "seed": always;
    raises InputError unless both have the same seeds. "none": never.
    """
    same = set(a) == set(b)
    if pairing == "seed" and not same:
        raise InputError(
            f"Pairing by seed needs the same seeds in both arms, but they have {_listed(a)} and {_listed(b)}: train the missing "
            "runs, or choose another pairing."
        )
    return pairing == "seed" or (pairing == "auto" and same and len(a) >= FEWEST_PAIRS)


def samples_of(a: np.ndarray, b: np.ndarray, *, paired: bool) -> list[np.ndarray]:
    """The independent samples whose means add up to mean(a) - mean(b). Shapes (n, ...); paired, row r of both is one seed."""
    return [a - b] if paired else [a, -b]


def effective_freedom(variances: Sequence[np.ndarray], freedoms: Sequence[Freedom], caution: float = 1.0) -> np.ndarray:
    """Degrees of freedom of the sum of `variances`, each (S,), by their own: (S,). NaN where all are 0.

    Satterthwaite's, with weights proportional to v / f^caution (see above).
    """
    weights = [v / f**caution for v, f in zip(variances, freedoms, strict=True)]
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = [w**2 / f for w, f in zip(weights, freedoms, strict=True)]
        found: np.ndarray = np.sum(weights, axis=0) ** 2 / np.sum(squares, axis=0)
    return found


def correlation(a: np.ndarray, b: np.ndarray) -> Correlation:
    """Of the scores (n,) and (n,) of the same n >= 3 seeds; the interval by Fisher's z (Metron 1, 1921). NaN without spread."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = float(np.corrcoef(a, b)[0, 1])
        reach = float(ndtri(0.975)) / np.sqrt(len(a) - 3) if len(a) > 3 else np.nan
        low, high = np.tanh(np.arctanh(np.clip(found, -1, 1)) + np.array([-reach, reach]))
    return Correlation(found, float(low), float(high))


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
