r"""From the difference of two arms at several scales to the one at a larger scale, with a prediction interval.

A scale is a depth on its number of tokens, and a rung is the difference y of the two arms there, with the standard error s that replicates give it.
x is the logarithm of a run's compute. Random-effects meta-regression (Berkey, Hoaglin, Mosteller and Colditz, Stat. Med. 14, 1995):

    y_i = a + b g(x_i) + u_i + e_i,     u_i ~ N(0, tau^2),  e_i ~ N(0, s_i^2)

u is how far a scale is off the law however many replicates it gets. A new scale is off the law, too, so tau^2 is a part of what is predicted
(Higgins, Thompson and Spiegelhalter, J. R. Statist. Soc. A 172, 2009).

Scatter. k rungs tell tau by k - 2 squares, and rungs that lie on a law by luck tell too little of it: an interval that takes them at their word
covers 39 to 87 % of such ladders instead of 90. So tau is not estimated but averaged over, each value weighed by its restricted likelihood
(Harville, Biometrika 61, 1974) and by a prior that counts as much as one more square would (scaled inverse chi-square with `WORTH` degree of freedom,
Gelman, Bayesian Anal. 1, 2006): of `SCATTER` bits per byte, with `PART` of the differences' own size, for arms that are far apart have more to
scatter. With many rungs it does nothing.

Laws. g is x itself, or bends towards an asymptote as C^-c does: (1 - exp(-c x)) / c. A few rungs cannot tell these laws apart, and they go
different ways beyond the last rung. So all of `LAWS` are fitted and averaged, each weighed by its prior and its restricted likelihood
(Hoeting, Madigan, Raftery and Volinsky, Stat. Sci. 14, 1999). What is predicted is a mixture of normal distributions, one for each law and tau.
A sign that changes with scale is within all of them.

Documents. All scales are scored on the same documents, whose error they share: it moves all rungs together, so it has no part in
the fit and is added once to the square of each error.

`python -m benchmarks.verdict ladder` measures what the intervals cover, `backtest` says what they did cover in a ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from tasks.errors import InputError

FEWEST = 3
"""Rungs: a law has two numbers, and its scatter is seen from the third rung on."""
LEVEL = 0.9
LAWS = {0.0: 5.0, 0.1: 1.0, 0.2: 1.0, 0.3: 1.0, 0.4: 1.0}
"""{c of a law: its prior weight}. 0 is the law that is linear in log compute."""
SCATTER, PART, WORTH = 0.0014, 0.08, 1.0
"""The prior of tau: bits per byte, a part of the root mean square of the differences, and how many squares it counts for."""
TIMES = np.exp(np.linspace(-1.6, 5.0, 23))
"""Values of tau that are averaged over, as multiples of the prior's: it gives those beyond less than a hundredth."""
HALVINGS = 50


@dataclass(frozen=True)
class Predictions:
    """What N ladders predict: M normal distributions, one for each law and tau, with weights, means and errors (M, N)."""

    weights: np.ndarray
    means: np.ndarray
    errors: np.ndarray
    between: np.ndarray
    """tau: how far scales are off their law, standard deviation, the geometric mean over laws and what is likely: (N,)."""

    def below(self, values: np.ndarray) -> np.ndarray:
        """The predicted probability of a difference below each value: (N,)."""
        reached: np.ndarray = (self.weights * ndtr((values - self.means) / self.errors)).sum(0)
        return reached

    def quantile(self, probability: float) -> np.ndarray:
        """The difference that is undercut with this probability: (N,), by bisection."""
        each = self.means + ndtri(probability) * self.errors
        low, high = each.min(0), each.max(0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            under = self.below(middle) < probability
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        found: np.ndarray = (low + high) / 2
        return found

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the interval of `LEVEL` with equal tails: (N,) each."""
        return self.quantile((1 - LEVEL) / 2), self.quantile((1 + LEVEL) / 2)


def predict(
    compute: Sequence[float],
    differences: np.ndarray,
    errors: np.ndarray,
    target: float,
    *,
    documents: float = 0.0,
    seen_error: float = 0.0,
) -> Predictions:
    """What k rungs say of a larger scale. `compute`: FLOPs of a run at each rung (k,); `target`: those at the scale that is asked about.

    `differences`, `errors`: (N, k) in bits per byte, errors of replicates alone. `documents`: the standard error that the documents give all
    scales alike. `seen_error`: that of replicates of a difference which is to be found at the target, to compare it with; 0 predicts the mean
    of ever so many. Raises InputError for fewer than `FEWEST` rungs, rungs of equal compute, an unknown error, or a target within the ladder.
    """
    k = len(compute)
    if k < FEWEST:
        raise InputError(f"The ladder has {k} scales: give at least {FEWEST}, each of another depth.")
    if len(set(compute)) < k:
        raise InputError("Two scales of the ladder have the same compute: give each another depth.")
    if target <= max(compute):
        raise InputError("The target is not above all scales of the ladder: take a larger one, or shallower rungs.")
    if not (np.isfinite(errors) & (errors > 0)).all():
        raise InputError("The error of a rung is unknown: train at least 2 replicates of each arm at each depth.")
    return _averaged(compute, differences, errors, target, documents**2 + seen_error**2)


def band(
    compute: Sequence[float],
    differences: np.ndarray,
    errors: np.ndarray,
    at: Sequence[float],
    documents: float,
) -> list[tuple[float, float, float, float]]:
    """What one ladder, (k,) differences and errors, says of a new scale at each compute: (FLOPs, middle, low, high), within it as beyond."""
    rows = []
    for flops in at:
        found = _averaged(compute, differences[None], errors[None], flops, documents**2)
        middle, low, high = (float(each[0]) for each in (found.quantile(0.5), *found.interval()))
        rows.append((flops, middle, low, high))
    return rows


def _averaged(
    compute: Sequence[float], differences: np.ndarray, errors: np.ndarray, target: float, beside: float
) -> Predictions:
    """All laws together. `beside`: variance that does not come from the fit."""
    x = np.log(np.asarray(compute, dtype=float))
    at, start = float(np.log(target) - x.min()), x - x.min()
    scale = np.sqrt(SCATTER**2 + PART**2 * (differences**2).mean(1))
    taus = TIMES[:, None] * scale
    laws = [_fitted(_bent(start, c), float(_bent(np.array(at), c)), differences, errors**2, taus) for c in LAWS]
    means, squares, likelihood = (np.stack(part) for part in zip(*laws, strict=True))  # (laws, taus, N)
    prior = np.log(np.array(list(LAWS.values())))[:, None] - WORTH * (np.log(TIMES) + TIMES**-2.0 / 2)
    weights = np.exp(likelihood + prior[..., None] - (likelihood + prior[..., None]).max((0, 1)))
    weights = weights / weights.sum((0, 1))
    between = np.exp((weights * np.log(taus)).sum((0, 1)))
    weights, means, squares = (part.reshape(-1, len(scale)) for part in (weights, means, squares))
    return Predictions(weights, means, np.sqrt(squares + beside), between)


def _bent(x: np.ndarray, c: float) -> np.ndarray:
    """g of a law."""
    return x if c == 0 else -np.expm1(-c * x) / c


def _fitted(
    g: np.ndarray, at: float, y: np.ndarray, variances: np.ndarray, taus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One law on (N, k) differences, with each of (T, N) taus: its prediction, the square of its error, and its restricted log likelihood, (T, N) each."""
    weights = 1 / (variances + taus[..., None] ** 2)
    mean_y, mean_g, slope, total, scatter, squares = _line(g, y, weights)
    error2 = taus**2 + 1 / total + (at - mean_g) ** 2 / scatter
    spread = len(g) * ((g - g.mean()) ** 2).sum()  # makes the likelihood one of the law, however g is scaled
    likelihood = (np.log(weights).sum(-1) - squares - np.log(total * scatter / spread)) / 2
    return mean_y + slope * (at - mean_g), error2, likelihood


def _line(g: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Least squares with weights (..., N, k): means of y and g, slope, sum of weights, weighted squares of g and of the residuals, (..., N) each."""
    total = weights.sum(-1)
    mean_y, mean_g = (weights * y).sum(-1) / total, (weights * g).sum(-1) / total
    off_y, off_g = y - mean_y[..., None], g - mean_g[..., None]
    scatter = (weights * off_g**2).sum(-1)
    slope = (weights * off_g * off_y).sum(-1) / scatter
    squares = (weights * (off_y - slope[..., None] * off_g) ** 2).sum(-1)
    return mean_y, mean_g, slope, total, scatter, squares
