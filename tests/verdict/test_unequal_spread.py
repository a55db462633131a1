"""Arms whose runs scatter unequally with the seed. The rates themselves are those of `benchmarks.verdict coverage`."""

import pytest

from tasks.verdict.judge import judge

WILD, CALM = 0.05, 0.01
"""Standard deviation over seeds, bits per byte."""


def test_a_calm_third_arm_makes_no_other_pair_surer(bench) -> None:
    wild = {label: [bench.run(label, seed, spread=WILD) for seed in (1, 2)] for label in ("top", "random")}
    calm = {"calm": [bench.run("calm", seed, spread=CALM) for seed in (1, 2)]}
    alone, beside = (judge(bench.root, "verdict", arms).comparisons[0].p for arms in (wild, wild | calm))
    assert beside == pytest.approx(3 * alone)  # there are three pairs then
