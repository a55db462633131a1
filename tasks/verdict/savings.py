"""A difference in bits per byte as a share of trained tokens, by the better arm's own loss curve.

The better arm ends below the worse one. The point on its curve that lies above its end by exactly that difference tells how
many tokens it had needed to get as far as the worse arm. The learning rate had not yet decayed at that point, so a run planned
for so few tokens would have done better than the curve says: the result is a lower bound of the savings
(Hoffmann et al., arXiv 2203.15556, appendix B, on why a schedule must match its budget).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]
"""Trained tokens (rising) and bits per byte on the holdout at each."""


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
        points = {
            tokens: float(np.array(values[deciles], dtype=float) @ weights)
            for tokens, values in found.items()
            if values
        }
    tokens = np.array(sorted(points), dtype=float)
    return tokens, np.array([points[at] for at in sorted(points)], dtype=float)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, at the tokens where all of them were evaluated."""
    common = sorted(set.intersection(*(set(tokens) for tokens, _ in curves))) if curves else []
    values = [[dict(zip(*curve, strict=True))[at] for at in common] for curve in curves]
    return np.array(common), np.mean(values, axis=0) if common else np.array([])


def tokens_saved(curve: Curve, difference: float) -> float | None:
    """The share of its tokens (0 to 1) that the better arm could have done without, at least.

    `difference` >= 0 is how much lower the better arm ends. Between evaluations the curve is linear in the logarithm of
    tokens. None if there are fewer than 2 evaluations after the start, or if the difference is more than the curve covers.
    """
    tokens, values = curve
    tokens, values = tokens[tokens > 0], values[tokens > 0]
    if len(tokens) < 2:
        return None
    target = values[-1] + max(difference, 0.0)
    above = np.flatnonzero(values[:-1] >= target)
    if not len(above):
        return None
    last = int(above[-1])
    start, end = values[last], values[last + 1]
    part = 1.0 if start == end else (start - target) / (start - end)
    reached = np.exp(np.log(tokens[last]) + part * (np.log(tokens[last + 1]) - np.log(tokens[last])))
    return float(1 - reached / tokens[-1])
