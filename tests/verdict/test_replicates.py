"""What a seed does to a difference: degrees of freedom, correlation, and when runs are paired."""

import numpy as np
import pytest
from scipy import stats

from tasks.errors import InputError
from tasks.verdict.replicates import CAUTION, Spread, correlation, effective_freedom, paired_by_seed, samples_of

RANDOM = np.random.default_rng(6)


def test_equal_numbers_have_welchs_degrees_of_freedom():
    a, b = RANDOM.normal(size=(5, 10)), 0.2 * RANDOM.normal(size=(5, 10))
    spread = Spread.of(samples_of(a, b, paired=False))
    test = stats.ttest_ind(a, b, axis=0, equal_var=False)
    assert spread.freedom == pytest.approx(test.df)
    assert (a.mean(0) - b.mean(0)) / spread.error == pytest.approx(test.statistic)


def test_the_variance_of_the_fewer_runs_weighs_more():
    """By hand: v / f^1.5 is 1 and 1/8, so nu = (9/8)^2 / (1 + 1/64/4); by Welch it is 2^2 / (1 + 1/4)."""
    variances = [np.ones(1), np.ones(1)]
    assert effective_freedom(variances, [1, 4], CAUTION) == pytest.approx((9 / 8) ** 2 / (1 + 1 / 256))
    assert effective_freedom(variances, [1, 4], 0.0) == pytest.approx(3.2)


def test_one_run_has_no_spread():
    spread = Spread.of(samples_of(np.ones((1, 2)), RANDOM.normal(size=(3, 2)), paired=False))
    assert not spread.known and np.isnan(spread.error).all()


def test_the_correlation_is_scipys():
    a = RANDOM.normal(size=8)
    b = a + 0.5 * RANDOM.normal(size=8)
    found, expected = correlation(a, b), stats.pearsonr(a, b)
    assert found.estimate == pytest.approx(expected.statistic)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert np.isnan(correlation(a[:3], b[:3]).low) and np.isnan(correlation(a, np.ones(8)).estimate)


@pytest.mark.parametrize(
    ("pairing", "a", "b", "paired"),
    [
        ("auto", [1, 2], [1, 2], False),
        ("auto", [1, 2, 3], [3, 2, 1], True),
        ("auto", [1, 2, 3, 4], [1, 2, 3, 5], False),
        ("seed", [1, 2], [1, 2], True),
        ("none", [1, 2, 3, 4], [1, 2, 3, 4], False),
    ],
)
def test_whether_runs_are_paired_depends_on_their_seeds_alone(pairing, a, b, paired):
    assert paired_by_seed(pairing, a, b) is paired


def test_seeds_that_differ_cannot_be_paired():
    with pytest.raises(InputError, match="they have 1, 2 and 1, 3: train the missing runs"):
        paired_by_seed("seed", [2, 1], [3, 1])
