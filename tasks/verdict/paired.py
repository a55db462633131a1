r"""Paired differences in bits per byte between two arms, with intervals that hold for new documents *and* new seeds.

Estimand. Arm A trained with seed s spends x_{A,s,i} nats on holdout document i of b_i bytes. The difference is

    delta = mean over seeds of  sum_i (x_{A,s,i} - x_{B,s,i}) / sum_i b_i / ln 2        [bits per byte; below 0: A is better]

a ratio estimator: every byte weighs the same, and both arms read the same documents, so that what makes a document hard for
every model cancels out.

Documents. They were picked in blocks (clusters), so blocks are what is resampled. The interval is bootstrap-t: every
resample is studentized by its own linearized cluster variance of the ratio (Cochran, Sampling Techniques, 3rd ed. 1977, chapters 6 and 9A)

    V = C/(C-1) * sum_c (d_c - delta b_c)^2 / (sum_c b_c)^2

which is second-order accurate (Hall, Ann. Statist. 16, 1988) and holds its level where the percentile interval does not, with
few clusters (Cameron, Gelbach and Miller, Rev. Econ. Stat. 90, 2008). A stratum keeps all clusters, those that have no
document in it with zeros: domain estimation (Cochran, chapter 2).

Seeds. A seed moves a whole run, all documents together, which no resampling of documents can see. Its variance s^2 is
estimated from the runs' own means, pooled over arms (nu = number of runs - number of arms degrees of freedom: arms differ in
documents, not in what a seed does to a run). Two arms with n_A and n_B seeds then have a seed error of s sqrt(1/n_A + 1/n_B)
times Student's t with nu degrees of freedom: with 2 seeds each nu = 2 and t = 4.3, which is what 2 seeds are worth.

Both. Documents and seeds are crossed, and s^2 already holds the part of the documents' error that changes with the seed
(interaction); it is taken out of V, else it would count twice (as in two-way clustering: Cameron, Gelbach and Miller, J. Bus.
Econ. Stat. 29, 2011). The interval is the distribution of the sum of the two independent errors: bootstrap-t draws convolved with
the scaled t, a generalized (fiducial) interval of the Behrens-Fisher kind, which keeps its level when one part dominates and errs
towards caution in between (Weerahandi, JASA 88, 1993).

With one seed an arm s^2 cannot be estimated: the interval holds for *these two models* on new documents, and says nothing of
what other seeds would have done. `Differences.covers_seeds` tells which of the two it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LN2 = np.log(2.0)
FEWEST_CLUSTERS = 8  # with documents in them: below, too many resamples hold one cluster alone
DRAWS = 4_000
TILE = 10  # values of Student's t per bootstrap draw
CHUNK = 1 << 22  # resampling weights held at once


@dataclass(frozen=True)
class Differences:
    """Estimates for S strata at once, each field of shape (S,): bits per byte, below 0 when the first arm is better."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    error_documents: np.ndarray
    error_seeds: np.ndarray
    clusters: np.ndarray
    degrees_of_freedom: int
    covers_seeds: bool


@dataclass(frozen=True)
class Spread:
    """Variance of one run's bits per byte over seeds, (S,), with its degrees of freedom (0: not known)."""

    variance: np.ndarray
    degrees_of_freedom: int


def cluster_sums(values: np.ndarray, strata: np.ndarray, clusters: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sums of `values` (..., documents) by stratum and cluster: (..., S, C). A stratum below 0 is left out."""
    inside = strata >= 0
    place = strata[inside].astype(np.int64) * shape[1] + clusters[inside]
    flat = values[..., inside].reshape(-1, place.size)
    sums = np.stack([np.bincount(place, weights=row, minlength=shape[0] * shape[1]) for row in flat])
    return sums.reshape(*values.shape[:-1], *shape)


def bits_per_byte(nats: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(..., S, C) sums of nats and (S, C) sums of bytes as (..., S) bits per byte; NaN for a stratum without bytes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = nats.sum(-1) / sizes.sum(-1) / LN2
    return values


def seed_spread(arms: Sequence[np.ndarray], sizes: np.ndarray) -> Spread:
    """Variance between seeds pooled over arms: `arms` holds one (seeds, S, C) array of nats an arm."""
    means = [bits_per_byte(arm, sizes) for arm in arms]
    freedom = sum(len(mean) - 1 for mean in means)
    squares = sum(((mean - mean.mean(0)) ** 2).sum(0) for mean in means)
    return Spread(squares / freedom if freedom else np.full(len(sizes), np.nan), freedom)


def paired_differences(
    a: np.ndarray,
    b: np.ndarray,
    sizes: np.ndarray,
    spread: Spread,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Differences:
    """Difference of arm `a` from arm `b` per stratum, with an interval of the given level and a two-sided p-value.

    a: (seeds of a, S, C) nats, b: (seeds of b, S, C) nats, sizes: (S, C) bytes. A stratum with documents in fewer than
    `FEWEST_CLUSTERS` clusters gets NaN for its interval. Equal input gives equal output: resampling starts from `seed`.
    """
    clusters = (sizes > 0).sum(1)
    difference = (a.mean(0) - b.mean(0)) / LN2
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = difference.sum(1) / sizes.sum(1)
        variance = _linearized(difference - estimate[:, None] * sizes) / sizes.sum(1) ** 2
    variance = np.where(clusters >= FEWEST_CLUSTERS, variance, np.nan)
    random = np.random.default_rng(seed)
    errors = _studentized(difference, sizes, estimate, draws, random)
    main = np.maximum(variance - _interaction(a, sizes) / len(a) - _interaction(b, sizes) / len(b), 0.0)
    error_documents = np.sqrt(main if spread.degrees_of_freedom else variance)
    error_seeds = np.sqrt(spread.variance * (1 / len(a) + 1 / len(b)))
    errors = estimate - errors * error_documents
    if spread.degrees_of_freedom:
        errors = np.tile(errors, (TILE, 1))
        probability = (np.arange(len(errors)) + 0.5) / len(errors)
        student = stdtrit(spread.degrees_of_freedom, probability)
        errors = errors + random.permuted(np.broadcast_to(student[:, None], errors.shape), axis=0) * error_seeds
    tail = (1 - level) / 2
    low, high = np.quantile(errors, [tail, 1 - tail], axis=0)
    below = (errors < 0).mean(0) + (errors == 0).mean(0) / 2
    p = np.minimum(1.0, 2 * np.maximum(np.minimum(below, 1 - below), 1 / (len(errors) + 1)))
    p = np.where(np.isfinite(low), p, np.nan)
    freedom = spread.degrees_of_freedom
    return Differences(estimate, low, high, p, error_documents, error_seeds, clusters, freedom, bool(freedom))


def detectable_difference(
    error_documents: float,
    variance: float,
    freedom: int,
    arms: int,
    seeds: int,
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """The smallest true difference that `seeds` seeds an arm would show with probability `power`, in bits per byte.

    (t_{1-alpha/2} + t_power) times the standard error, t by Satterthwaite's degrees of freedom, with the seeds' variance as
    estimated now (`freedom` behind it) and a new spread from arms * (seeds - 1); the documents' error stays as it is: only a larger holdout
    makes it smaller. NaN for one seed, or when the variance is not known.
    """
    if seeds < 2 or freedom < 1:
        return float("nan")
    from_seeds, from_documents = 2 * variance / seeds, error_documents**2
    total = from_seeds + from_documents
    if total == 0:
        return 0.0
    planned = arms * (seeds - 1)
    satterthwaite = total**2 / (from_seeds**2 / planned) if from_seeds else np.inf
    quantiles = stdtrit(min(satterthwaite, 1e6), [(1 + level) / 2, power])
    return float(quantiles.sum() * np.sqrt(total))


def _linearized(residuals: np.ndarray) -> np.ndarray:
    """C/(C-1) times the sum of squares over the last axis, clusters without a document included as zeros."""
    count = residuals.shape[-1]
    variance: np.ndarray = count / max(count - 1, 1) * (residuals**2).sum(-1)
    return variance


def _interaction(arm: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The part of one run's variance that comes from documents answering differently to each seed: (S,), 0 for one seed."""
    if len(arm) < 2:
        return np.zeros(len(sizes))
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = (arm / LN2 - bits_per_byte(arm, sizes)[..., None] * sizes) / sizes.sum(1)[:, None]
    residuals = residuals - residuals.mean(0)
    variance: np.ndarray = _linearized(residuals).sum(0) / (len(arm) - 1)
    return variance


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
