"""Arms whose runs scatter unequally with the seed: one of similar documents moves less than one of all kinds."""

import numpy as np
import pytest

from tasks.verdict.judge import judge
from tasks.verdict.paired import LN2, paired_differences, seed_spread

WILD, CALM = 0.05, 0.01
"""Standard deviation over seeds, bits per byte."""
POOLED = "A verdict that a referee signs: the spread over seeds is pooled over all arms"


@pytest.mark.xfail(strict=True, raises=AssertionError, reason=POOLED)
def test_false_alarms_come_at_the_nominal_rate_where_one_arm_is_calmer() -> None:
    simulations, clusters = 2_000, 16
    random = np.random.default_rng(0)
    sizes = np.full((simulations, clusters), 1e6)
    hard = random.normal(1.0, 0.1, sizes.shape)
    wild, calm = ((hard + sd * random.normal(size=(2, simulations, 1))) * sizes * LN2 for sd in (WILD, CALM))
    found = paired_differences(wild, calm, sizes, seed_spread([wild, calm], sizes), draws=400)
    assert 0.03 <= (found.p < 0.05).mean() <= 0.07


@pytest.mark.xfail(strict=True, raises=AssertionError, reason=POOLED)
def test_a_calm_third_arm_makes_no_other_pair_surer(bench) -> None:
    wild = {label: [bench.run(label, seed, spread=WILD) for seed in (1, 2)] for label in ("top", "random")}
    calm = {"calm": [bench.run("calm", seed, spread=CALM) for seed in (1, 2)]}
    alone, beside = (judge(bench.root, "verdict", arms).comparisons[0].p for arms in (wild, wild | calm))
    assert beside >= 0.95 * alone
