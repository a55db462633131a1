"""A difference in bits per byte as a share of trained tokens, by the better arm's own loss curves.

The better arm ends below the worse one. Where its curve passes the level at which the worse arm ends, it had trained on as many tokens as
it needs to get as far. The learning rate had not yet decayed there, so a run planned for so few tokens would have done better
than the curve says: the result is a lower bound of the savings (Hoffmann et al., arXiv 2203.15556, appendix B, on why a schedule
must match its budget).

The interval is a test at every evaluation of the better arm's replicates against the ends of the worse arm's: it holds the tokens at
which the difference is not told from 0. So it has the errors that replicates have *there*, not at the end, and it stays valid where the
curve is flat, as Fieller's interval of a ratio does (Fieller, J. R. Statist. Soc. B 16, 1954). The documents' error is
that of the final difference. `python -m benchmarks.verdict savings` measures how often it holds the truth.

`shortened` names the budget that puts the estimate to the test: runs of the better arm that really stop there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from tasks.records.verdict import TokensSaved
from tasks.verdict.replicates import Spread, effective_freedom, samples_of

Curve = tuple[np.ndarray, np.ndarray]
"""Trained tokens (rising) and bits per byte on the holdout at each."""
UNKNOWN = TokensSaved(estimate=None, low=None, high=None)


def curve_of(
    metrics: Sequence[Mapping[str, Any]], sizes: np.ndarray | None = None, deciles: slice = slice(None)
) -> Curve:
    """The evaluations among a run's metrics lines; with `sizes` (bytes of each decile), only those of `deciles`."""
    lines = [line for line in metrics if line.get("kind") == "eval" and "bpb" in line]
    if sizes is None:
        points = {line["tokens"]: line["bpb"] for line in lines}
    else:
        weights = sizes[deciles] / sizes[deciles].sum()
        found = {line["tokens"]: line.get("bpb_by_decile") for line in lines}
        points = {  # an empty decile weighs nothing
            tokens: float(np.nan_to_num(np.array(values[deciles], dtype=float)) @ weights)
            for tokens, values in found.items()
            if values
        }
    tokens = np.array(sorted(points), dtype=float)
    return tokens, np.array([points[at] for at in sorted(points)], dtype=float)


def tokens_saved(
    curves: Sequence[Curve],
    better: np.ndarray,
    worse: np.ndarray,
    *,
    paired: bool,
    level: float = 0.95,
    documents: float = 0.0,
    clusters: int = 2,
) -> TokensSaved:
    """The share of its tokens (0 to 1) that the better arm could have done without, at least, with its interval.

    curves: of the better arm's n runs. better (n,) and worse (m,): where both arms' runs end, bits per byte on what decides; a curve on
    other documents is shifted to end there. `paired`: run r of both has the same seed. `documents`: standard error of the documents, of so many
    `clusters`. Between evaluations curves are linear in the logarithm of tokens. The estimate is None if there are fewer than 2
    evaluations after the start, or if the curves do not reach back to where the worse arm ends; so is an end of the interval that
    they do not reach, or with one run in an arm.
    """
    tokens, values = _common(curves)
    if len(tokens) < 2:
        return UNKNOWN
    values = values - values[:, -1:] + better[:, None]
    samples = samples_of(values, np.repeat(worse[:, None], len(tokens), axis=1), paired=paired)
    difference = sum(sample.mean(0) for sample in samples)
    spread = Spread.of(samples)
    estimate = _saved(tokens, difference)
    if not spread.known:
        return TokensSaved(estimate=estimate, low=None, high=None)
    parts = [spread.of_means.sum(0), np.full(len(tokens), documents**2)]
    freedoms = [np.nan_to_num(spread.freedom, nan=1.0), clusters - 1]
    freedom = effective_freedom(parts, freedoms, caution=0.0)
    reach = stdtrit(np.nan_to_num(freedom, nan=1.0), (1 + level) / 2) * np.sqrt(sum(parts))
    low = 0.0 if difference[-1] + reach[-1] >= 0 else _saved(tokens, difference + reach)
    return TokensSaved(estimate=estimate, low=low, high=_saved(tokens, difference - reach))


def shortened(saved: float, tokens: int, batch_tokens: int) -> int:
    """The budget of a run that does without the share `saved` of `tokens`: whole batches, and no fewer tokens than that leaves."""
    return max(1, -int(-(1 - saved) * tokens // batch_tokens)) * batch_tokens


def _common(curves: Sequence[Curve]) -> Curve:
    """Tokens (T,) above 0 at which all runs were evaluated, and what was found there, (runs, T)."""
    common = sorted(set.intersection(*(set(tokens[tokens > 0]) for tokens, _ in curves))) if curves else []
    found = [dict(zip(*curve, strict=True)) for curve in curves]
    return np.array(common), np.array([[values[at] for at in common] for values in found])


def _saved(tokens: np.ndarray, above: np.ndarray) -> float | None:
    """The share of tokens after the last time that `above` falls to 0; 0 if it ends above; None if it never was."""
    if above[-1] >= 0:
        return 0.0
    places = np.flatnonzero(above >= 0)
    if not len(places):
        return None
    last = int(places[-1])
    part = above[last] / (above[last] - above[last + 1])
    reached = np.exp(np.log(tokens[last]) + part * (np.log(tokens[last + 1]) - np.log(tokens[last])))
    return float(1 - reached / tokens[-1])
