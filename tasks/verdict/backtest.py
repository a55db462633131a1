"""What a ladder would have said of larger scales that a ledger has already: each pair of arms, its largest scale predicted from the smaller ones.

A series is what was trained alike at several depths, with equal tokens for each scaling parameter or with equal tokens. Of each pair of arms in it
the largest scale alone is predicted, once: predictions of one pair from nested parts of its rungs would say the same several times. Pairs that
share an arm still do so in part.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev

import numpy as np

from tasks.records.ladder import Backtest, Trial
from tasks.records.ledger import LedgerEntry
from tasks.records.scaling import ModelShape, flops_per_token, parameter_counts
from tasks.verdict.ladder import FEWEST, LEVEL, predict
from tasks.verdict.replicates import paired_by_seed

SCALING = ("depth", "tokens", "tokens_per_parameter")
"""What differs between the scales of a series."""
ALIKE = 1.02
"""Ratios of tokens to parameters that differ by less are one: budgets are whole numbers of tokens."""
Scores = dict[int, float]
"""{seed: bits per byte on the holdout}"""
Cells = dict[tuple[int, int], dict[str, Scores]]
"""{(depth, budget in tokens): {arm: scores}} of what was otherwise trained alike."""


def backtest(found: Sequence[LedgerEntry]) -> Backtest:
    """The trials that the entries of a ledger allow. A scale counts where both arms have two replicates or more."""
    trials: dict[tuple[int | str, ...], Trial] = {}
    for group, (pool, shape_of, cells) in enumerate(_alike(found)):
        for scales in _series(cells, shape_of):
            arms = sorted({arm for scale in scales for arm in cells[scale]})
            for a, b in combinations(arms, 2):
                rungs = [scale for scale in scales if all(len(cells[scale].get(arm, ())) > 1 for arm in (a, b))]
                if len(rungs) > FEWEST and (trial := _trial(a, b, pool, rungs, cells, shape_of)):
                    trials.setdefault((group, a, b, *map(str, rungs)), trial)
    return Backtest(level=LEVEL, trials=tuple(trials.values()))


class _Shapes:
    """Models of one kind at each depth."""

    def __init__(self, entry: LedgerEntry):
        self._training, self._vocab = entry.experiment.training, entry.experiment.pool.vocab_size

    def __call__(self, depth: int) -> ModelShape:
        return ModelShape.of(self._training.model_copy(update={"depth": depth}), self._vocab)


def _alike(found: Sequence[LedgerEntry]) -> Iterator[tuple[str, _Shapes, Cells]]:
    """Finished runs on one pool that differ in arm, seed, depth and budget alone."""
    groups: dict[str, Cells] = {}
    first: dict[str, LedgerEntry] = {}
    names: dict[str, dict[str, str]] = {}
    for entry in found:
        budget = entry.experiment.training.tokens or entry.tokens
        if entry.state != "completed" or entry.bpb is None or not budget:
            continue
        asked = entry.experiment.identity()
        training = {name: value for name, value in asked.pop("training").items() if name not in SCALING}
        arm = {name: value for name, value in asked.pop("arm").items() if name not in ("seed", "name")}
        del asked["seed"]
        key = json.dumps([entry.pool_id, training, asked], sort_keys=True)
        known = names.setdefault(key, {})
        new = f"{entry.arm} ({len(known) + 1})" if entry.arm in known.values() else entry.arm
        label = known.setdefault(json.dumps(arm, sort_keys=True), new)
        first.setdefault(key, entry)
        groups.setdefault(key, {}).setdefault((entry.depth, budget), {}).setdefault(label, {})[entry.seed] = entry.bpb
    for key, cells in groups.items():
        yield first[key].pool_id, _Shapes(first[key]), cells


def _series(cells: Cells, shape_of: _Shapes) -> Iterator[list[tuple[int, int]]]:
    """Scales of rising depth with equal tokens for each parameter, then those with equal tokens."""
    ratio = {scale: scale[1] / parameter_counts(shape_of(scale[0])).scaling for scale in cells}
    series: list[list[tuple[int, int]]] = []
    for scale in sorted(cells, key=lambda each: ratio[each]):
        if series and ratio[scale] <= ALIKE * ratio[series[-1][0]]:
            series[-1].append(scale)
        else:
            series.append([scale])
    for tokens in sorted({tokens for _, tokens in cells}):
        series.append([scale for scale in cells if scale[1] == tokens])
    for scales in series:
        rising = sorted(scales)
        if len({depth for depth, _ in rising}) == len(rising) > FEWEST:
            yield rising


def _trial(
    a: str,
    b: str,
    pool: str,
    rungs: Sequence[tuple[int, int]],
    cells: Mapping[tuple[int, int], Mapping[str, Scores]],
    shape_of: _Shapes,
) -> Trial | None:
    """The last rung by those before it; None where replicates do not differ, whose error nobody knows."""
    seen = [_difference(cells[scale][a], cells[scale][b]) for scale in rungs]
    if not all(error > 0 for _, error in seen):
        return None
    compute = [flops_per_token(shape_of(depth)) * float(tokens) for depth, tokens in rungs]
    differences, errors = (np.array([part]) for part in zip(*seen[:-1], strict=True))
    found = predict(compute[:-1], differences, errors, compute[-1], seen_error=seen[-1][1])
    low, high = (float(end[0]) for end in found.interval())
    return Trial(
        a=a,
        b=b,
        pool=pool,
        depths=tuple(depth for depth, _ in rungs),
        difference=seen[-1][0],
        error=seen[-1][1],
        predicted=float(found.quantile(0.5)[0]),
        low=low,
        high=high,
    )


def _difference(a: Scores, b: Scores) -> tuple[float, float]:
    """Of two arms at one scale, with its standard error by their replicates, paired as a comparison pairs them."""
    difference = fmean(a.values()) - fmean(b.values())
    if paired_by_seed("auto", list(a), list(b)):
        return difference, stdev(a[seed] - b[seed] for seed in a) / len(a) ** 0.5
    return difference, (stdev(a.values()) ** 2 / len(a) + stdev(b.values()) ** 2 / len(b)) ** 0.5
