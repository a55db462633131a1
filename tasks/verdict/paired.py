r"""Paired differences in bits per byte between two arms, with intervals that hold for new documents *and* new seeds.

Estimand. Arm A trained with seed s spends x_{A,s,i} nats on holdout document i of b_i bytes. The difference is

    delta = mean over seeds of  sum_i (x_{A,s,i} - x_{B,s,i}) / sum_i b_i / ln 2        [bits per byte; below 0: A is better]

a ratio estimator: every byte weighs the same, and both arms read the same documents, so that what makes a document hard for
every model cancels out.

Documents. They were picked in blocks (clusters), so blocks are what is resampled. The interval is a symmetric bootstrap-t:
every resample is studentized by its own linearized cluster variance of the ratio (Cochran, Sampling Techniques, 3rd ed. 1977, chapters 6 and 9A)

    V = C/(C-1) * sum_c (d_c - delta b_c)^2 / (sum_c b_c)^2

and the quantile is of the studentized amounts (Hall, J. R. Statist. Soc. B 50, 1988). It holds its level where the percentile interval does
not, with few clusters (Cameron, Gelbach and Miller, Rev. Econ. Stat. 90, 2008), and where the equal-tailed one does not, with long tails. A stratum keeps all clusters, those that have no
document in it with zeros: domain estimation (Cochran, chapter 2).

Seeds. A seed moves a whole run, all documents together, which no resampling of documents can see. Its variance is estimated from
the runs of these two arms, each by itself or paired by seed (`replicates` says which, and how many degrees of freedom that has),
and enters as the standard error of the mean difference times Student's t.

Together. The intervals of strata are each of its own level. `Differences.together` widens all of them by one factor, so that they hold at
once: the quantile of the largest studentized error over strata (max-t; Westfall and Young, Resampling-Based Multiple Testing, 1993). Documents are
resampled for all strata at once. How seeds correlate between strata few replicates cannot tell, so their errors are drawn independently: of
all dependences the one with the widest bands (Šidák, JASA 62, 1967).

Both. Documents and seeds are crossed, and the seeds' variance already holds the part of the documents' error that changes with the seed
(interaction); it is taken out of V, else it would count twice (as in two-way clustering: Cameron, Gelbach and Miller, J. Bus.
Econ. Stat. 29, 2011). The interval is the distribution of the sum of the two independent errors: bootstrap-t draws convolved with
the scaled t, a generalized (fiducial) interval of the Behrens-Fisher kind (Weerahandi, JASA 88, 1993). That alone errs towards caution where
both errors are of a size, so t has the degrees of freedom of the whole error, documents included.

With one seed in an arm its spread cannot be estimated: the interval holds for *these models* on new documents, and says nothing of
what other seeds would have done. `Differences.covers_seeds` tells which of the two it is. What all this holds is measured by
`python -m benchmarks.verdict coverage`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from tasks.verdict.replicates import Spread, effective_freedom, samples_of

LN2 = np.log(2.0)
FEWEST_CLUSTERS = 8  # with documents in them: below, too many resamples hold one cluster alone
DRAWS = 4_000
TILE = 10  # values of Student's t per bootstrap draw
KNOTS = ndtri(1e-9) * np.linspace(1, -1, 513)
"""Normal quantiles at which those of Student's t are computed; linear in between."""
MOST_FREEDOM = 1e6  # as good as the normal distribution
CHUNK = 1 << 22  # resampling weights held at once


@dataclass(frozen=True)
class Differences:
    """Estimates for S strata at once, each array of shape (S,): bits per byte, below 0 when the first arm is better."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    error_documents: np.ndarray
    clusters: np.ndarray
    degrees_of_freedom: np.ndarray
    """Of Student's t for the seeds; NaN where the spread is not known."""
    spread: Spread
    amounts: np.ndarray = field(repr=False)
    """Drawn absolute errors, (draws, S): what intervals are quantiles of."""

    def at(self, level: float) -> "Differences":
        """The same with intervals of another level."""
        reach = np.quantile(self.amounts, level, axis=0)
        return replace(self, low=self.estimate - reach, high=self.estimate + reach)

    def together(self, level: float) -> "Differences":
        """The same with intervals that hold for all strata at once with probability `level`."""
        found = self.at(level)
        reach = found.high - found.estimate
        known = np.isfinite(reach) & (reach > 0)
        if known.any():
            largest = (self.amounts[:, known] / reach[known]).max(1)
            reach = reach * np.quantile(largest, level)
        return replace(self, low=self.estimate - reach, high=self.estimate + reach)

    def adjusted(self, pairs: int) -> "Differences":
        """The same with p-values adjusted for the number of pairs (Bonferroni)."""
        return replace(self, p=np.minimum(1.0, self.p * pairs))

    @property
    def covers_seeds(self) -> bool:
        """Whether the intervals hold for new seeds too."""
        return self.spread.known


def cluster_sums(values: np.ndarray, strata: np.ndarray, clusters: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sums of `values` (..., documents) by stratum and cluster: (..., S, C). A stratum below 0 is left out."""
    inside = strata >= 0
    place = strata[inside].astype(np.int64) * shape[1] + clusters[inside]
    flat = values[..., inside].reshape(math.prod(values.shape[:-1]), place.size)
    sums = np.stack([np.bincount(place, weights=row, minlength=shape[0] * shape[1]) for row in flat])
    return sums.reshape(*values.shape[:-1], *shape)


def bits_per_byte(nats: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(..., S, C) sums of nats and (S, C) sums of bytes as (..., S) bits per byte; NaN for a stratum without bytes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = nats.sum(-1) / sizes.sum(-1) / LN2
    return values


def paired_differences(
    a: np.ndarray,
    b: np.ndarray,
    sizes: np.ndarray,
    *,
    paired: bool = False,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Differences:
    """Difference of arm `a` from arm `b` per stratum, with an interval of the given level and a two-sided p-value.

    a: (seeds of a, S, C) nats, b: (seeds of b, S, C) nats, sizes: (S, C) bytes. `paired`: row r of both has the same seed, and seeds
    are paired. A stratum with documents in fewer than `FEWEST_CLUSTERS` clusters gets NaN for its interval. Equal input gives equal
    output: resampling starts from `seed`.
    """
    samples = samples_of(a, b, paired=paired)
    spread = Spread.of([bits_per_byte(sample, sizes) for sample in samples])
    clusters = (sizes > 0).sum(1)
    difference = sum(sample.mean(0) for sample in samples) / LN2
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = difference.sum(1) / sizes.sum(1)
        variance = _linearized(difference - estimate[:, None] * sizes) / sizes.sum(1) ** 2
    variance = np.where(clusters >= FEWEST_CLUSTERS, variance, np.nan)
    random = np.random.default_rng(seed)
    errors = _studentized(difference, sizes, estimate, draws, random)
    if spread.known:
        interaction = sum(_interaction(sample, sizes) / len(sample) for sample in samples)
        variance = np.maximum(variance - interaction, 0.0)
    errors = errors * np.sqrt(variance)
    freedom = np.full(len(sizes), np.nan)
    if spread.known:
        parts = [spread.of_means.sum(0), np.nan_to_num(variance)]
        freedom = effective_freedom(parts, [spread.freedom, sizes.shape[1] - 1])
        student = random.permuted(_student(np.nan_to_num(freedom, nan=1.0), TILE * draws), axis=0)
        errors = np.tile(errors, (TILE, 1)) + student * spread.error
    amounts = np.abs(errors)
    p = np.maximum((amounts >= np.abs(estimate)).mean(0), 1 / (len(errors) + 1))
    p = np.where(np.isfinite(amounts).all(0), p, np.nan)
    unknown = np.full_like(estimate, np.nan)
    return Differences(estimate, unknown, unknown, p, np.sqrt(variance), clusters, freedom, spread, amounts).at(level)


def level_of_a_pair(level: float, arms: int) -> float:
    """Bonferroni: at this level, the intervals of all pairs of `arms` arms hold together with probability `level`."""
    return 1 - (1 - level) / math.comb(arms, 2)


def detectable_difference(
    error_documents: float,
    variances: Sequence[float],
    seeds: int,
    level: float = 0.95,
    power: float = 0.8,
    clusters: int | None = None,
) -> float:
    """The smallest true difference that `seeds` seeds an arm would show with probability `power`, in bits per byte.

    `variances`: of one run in each sample: those of both arms, or paired by seed the one of their difference. (t_{1-alpha/2} + t_power) times
    the standard error. t has Welch's degrees of freedom, to which the documents add those of their `clusters` (None: many). Their
    error stays as it is: only a larger holdout makes it smaller. NaN for one seed, or when a variance is not known.
    """
    from_seeds = np.array(variances) / seeds
    total = from_seeds.sum() + error_documents**2
    if seeds < 2 or not np.isfinite(total):
        return float("nan")
    squares = (from_seeds**2).sum() / (seeds - 1)
    if clusters is None:
        freedom = from_seeds.sum() ** 2 / squares if squares else MOST_FREEDOM
    else:
        squares += error_documents**4 / max(clusters - 1, 1)
        freedom = total**2 / squares if squares else MOST_FREEDOM
    return float(stdtrit(freedom, [(1 + level) / 2, power]).sum() * np.sqrt(total))


def _linearized(residuals: np.ndarray) -> np.ndarray:
    """C/(C-1) times the sum of squares over the last axis, clusters without a document included as zeros."""
    count = residuals.shape[-1]
    variance: np.ndarray = count / max(count - 1, 1) * (residuals**2).sum(-1)
    return variance


def _interaction(arm: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The part of one run's variance that comes from documents answering differently to each seed: (S,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = (arm / LN2 - bits_per_byte(arm, sizes)[..., None] * sizes) / sizes.sum(1)[:, None]
    residuals = residuals - residuals.mean(0)
    variance: np.ndarray = _linearized(residuals).sum(0) / (len(arm) - 1)
    return variance


def _student(freedom: np.ndarray, count: int) -> np.ndarray:
    """The `count` evenly spaced quantiles of Student's t with `freedom` (S,), rising: (count, S)."""
    at = ndtri((np.arange(count) + 0.5) / count)
    values = stdtrit(freedom[:, None], ndtr(KNOTS))
    return np.stack([np.interp(at, KNOTS, row) for row in values], axis=1)


def _studentized(
    difference: np.ndarray, sizes: np.ndarray, estimate: np.ndarray, draws: int, random: np.random.Generator
) -> np.ndarray:
    """(draws, S) values of (resampled - estimate) / standard error of the resample, clusters drawn with replacement."""
    count = sizes.shape[1]
    residuals = difference - np.nan_to_num(estimate)[:, None] * sizes  # sums to 0: small numbers lose no digits
    columns = np.concatenate([residuals, sizes, residuals**2, residuals * sizes, sizes**2]).T
    values = np.empty((draws, len(sizes)))
    step = max(1, CHUNK // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        weights = random.multinomial(count, np.full(count, 1 / count), size=rows).astype(float)
        first, size, squares, products, sizes_squared = np.split(weights @ columns, 5, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = first / size
            variance = squares - 2 * shift * products + shift**2 * sizes_squared
            error = np.sqrt(count / max(count - 1, 1) * np.maximum(variance, 0)) / size
            values[start : start + rows] = shift / error
    # A resample of one block alone, or without any document of the stratum, has no error of its own: it tells nothing.
    bad = ~np.isfinite(values)
    values[bad] = np.take_along_axis(values, random.integers(0, draws, values.shape), axis=0)[bad]
    return np.where(np.isfinite(values), values, 0.0)
