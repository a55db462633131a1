"""The statistics against known cases: no difference, planted differences, and scipy where it has the same test."""

import numpy as np
import pytest
from scipy import stats

from tasks.verdict.paired import (
    LN2,
    bits_per_byte,
    cluster_sums,
    detectable_difference,
    level_of_a_pair,
    paired_differences,
)

SIMULATIONS = 1_000


def simulated(clusters, seeds, sd_seed, sd_documents, sd_interaction=0.0, difference=0.0, equal=False, seed=0):
    """SIMULATIONS experiments of two arms, one a stratum: nats of both (seeds, S, C), bytes (S, C).

    The standard deviations are those that each part alone gives to one run's bits per byte.
    """
    random = np.random.default_rng([seed, clusters, seeds])
    sizes = 1e6 * (
        np.ones((SIMULATIONS, clusters)) if equal else np.exp(random.normal(0, 0.3, (SIMULATIONS, clusters)))
    )
    hard = random.normal(1.0, 0.1, sizes.shape)
    documents = sd_documents * np.sqrt(clusters) * random.normal(size=sizes.shape)

    def arm(shift):
        runs = sd_seed * random.normal(size=(seeds, SIMULATIONS, 1))
        answers = sd_interaction * np.sqrt(clusters) * random.normal(size=(seeds, *sizes.shape))
        return (hard + shift + runs + answers) * sizes * LN2

    return arm(difference + documents), arm(0.0), sizes


def judged(a, b, sizes, **options):
    """All simulations, in slices that fit in memory: (low, high, p)."""
    found = []
    for start in range(0, len(sizes), 200):
        part = slice(start, start + 200)
        one = paired_differences(a[:, part], b[:, part], sizes[part], draws=600, seed=start, **options)
        found.append(np.stack([one.low, one.high, one.p]))
    return np.concatenate(found, axis=1)


PARTS = {
    "seeds alone": (0.01, 0.0, 0.0),
    "documents alone": (0.0, 0.01, 0.0),
    "both": (0.01, 0.01, 0.0),
    "both, and documents answer each seed differently": (0.01, 0.01, 0.005),
}


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("parts", PARTS)
def test_false_alarms_come_at_no_more_than_the_nominal_rate(seeds, parts):
    low, high, p = judged(*simulated(30, seeds, *PARTS[parts]))
    alarms = ((low > 0) | (high < 0)).mean()
    # Three standard errors of a rate of 5 % in 1,000 simulations are 2 %; below it, caution costs power, so not without end.
    assert 0.01 <= alarms <= 0.07
    assert abs((p < 0.05).mean() - alarms) <= 0.01  # 600 draws make a coarse p


@pytest.mark.parametrize("parts", PARTS)
def test_intervals_cover_planted_differences(parts):
    low, high, _ = judged(*simulated(30, 3, *PARTS[parts], difference=-0.03, seed=1))
    assert 0.93 <= ((low <= -0.03) & (high >= -0.03)).mean() <= 0.99


def test_one_seed_covers_new_documents_but_not_new_seeds():
    a, b, sizes = simulated(30, 1, 0.0, 0.01)
    low, high, _ = judged(a, b, sizes)
    assert 0.03 <= ((low > 0) | (high < 0)).mean() <= 0.08
    found = paired_differences(a, b, sizes, draws=200)
    assert not found.covers_seeds and np.isnan(found.degrees_of_freedom).all()
    low, high, _ = judged(*simulated(30, 1, 0.01, 0.01))
    assert ((low > 0) | (high < 0)).mean() > 0.15  # why one seed never makes a verdict


def test_few_and_unequal_blocks_keep_the_level():
    low, high, _ = judged(*simulated(8, 1, 0.0, 0.01, seed=2))
    assert 0.02 <= ((low > 0) | (high < 0)).mean() <= 0.09


def unlike(counts, spreads):
    """Twenty experiments of two arms whose spreads differ, with seed error alone."""
    random = np.random.default_rng(9)
    sizes = np.full((20, 30), 1e6)
    return *(
        spread * random.normal(size=(n, 20, 1)) * sizes * LN2 for n, spread in zip(counts, spreads, strict=True)
    ), sizes


def assert_is(found, test):
    expected = test.confidence_interval(0.95)
    width = expected.high - expected.low
    assert np.allclose(found.low, expected.low, atol=0.01 * width.max())
    assert np.allclose(found.high, expected.high, atol=0.01 * width.max())
    assert np.allclose(found.p, test.pvalue, atol=0.01)


def test_with_seed_error_alone_the_interval_is_welchs_t_test():
    a, b, sizes = unlike((4, 4), (0.01, 0.003))
    test = stats.ttest_ind(bits_per_byte(a, sizes), bits_per_byte(b, sizes), axis=0, equal_var=False)
    found = paired_differences(a, b, sizes)
    assert_is(found, test)
    assert np.allclose(found.degrees_of_freedom, test.df)


def test_paired_with_seed_error_alone_the_interval_is_the_paired_t_test():
    a, b, sizes = unlike((5, 5), (0.01, 0.003))
    b += 0.8 * a
    test = stats.ttest_rel(bits_per_byte(a, sizes), bits_per_byte(b, sizes), axis=0)
    found = paired_differences(a, b, sizes, paired=True)
    assert_is(found, test)
    assert np.allclose(found.degrees_of_freedom, 4)


def test_an_arm_outside_the_pair_does_not_count():
    a, b, sizes = unlike((3, 3), (0.01, 0.002))
    found = paired_differences(a, b, sizes)
    assert np.allclose(found.spread.variances[0], bits_per_byte(a, sizes).var(0, ddof=1))
    assert np.allclose(found.spread.error**2, found.spread.variances.sum(0) / 3)


def test_with_document_error_alone_the_interval_is_as_wide_as_scipys_bootstrap():
    """Equal blocks: the ratio is a mean. Ours is symmetric about it, scipy's BCa interval is not, but as wide."""
    blocks = np.random.default_rng(3).gamma(2.0, 0.01, 60)
    a, b, sizes = ((1.0 + blocks) * 1e6 * LN2)[None, None], np.full((1, 1, 60), 1e6 * LN2), np.full((1, 60), 1e6)
    found = paired_differences(a, b, sizes, draws=20_000)
    expected = stats.bootstrap((blocks,), np.mean, n_resamples=20_000, method="BCa", random_state=4).confidence_interval
    assert found.estimate[0] == pytest.approx(blocks.mean())
    assert found.low[0] + found.high[0] == pytest.approx(2 * found.estimate[0])
    assert found.high[0] - found.low[0] == pytest.approx(expected.high - expected.low, rel=0.1)


def test_many_equal_blocks_give_the_paired_t_test():
    random = np.random.default_rng(8)
    blocks = random.normal(0.01, 0.02, 400)
    sizes = np.full((1, 400), 1e5)
    a, b = ((1 + blocks) * 1e5 * LN2)[None, None], np.full((1, 1, 400), 1e5 * LN2)
    found = paired_differences(a, b, sizes, draws=20_000)
    expected = stats.ttest_1samp(blocks, 0.0).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((expected.low, expected.high), abs=0.0003)


def test_the_estimate_is_the_ratio_of_sums_and_changes_sign_with_the_arms():
    random = np.random.default_rng(2)
    sizes = np.exp(random.normal(8, 2, (1, 12)))
    a, b = sizes * random.normal(1, 0.1, (1, 1, 12)), sizes * random.normal(1, 0.1, (1, 1, 12))
    ab, ba = paired_differences(a, b, sizes), paired_differences(b, a, sizes)
    assert ab.estimate[0] == pytest.approx((a.sum() - b.sum()) / sizes.sum() / np.log(2))
    assert ab.estimate[0] == -ba.estimate[0]
    assert (ab.low[0], ab.high[0]) == pytest.approx((-ba.high[0], -ba.low[0]))


def test_equal_input_gives_equal_output():
    a, b, sizes = (part[..., :5, :] for part in simulated(30, 2, 0.01, 0.01))
    assert np.array_equal(paired_differences(a, b, sizes).low, paired_differences(a, b, sizes).low)


def test_cluster_sums_add_by_stratum_and_cluster_and_leave_out_what_has_none():
    values = np.array([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]])
    sums = cluster_sums(values, np.array([0, 0, 1, -1]), np.array([0, 2, 1, 1]), (2, 3))
    assert sums.tolist() == [[[1, 0, 2], [0, 4, 0]], [[1, 0, 1], [0, 1, 0]]]


def test_bands_of_independent_strata_are_sidaks_and_those_of_equal_strata_no_wider():
    random = np.random.default_rng(8)
    sizes = np.full((10, 400), 1e5)
    a, b = (1 + random.normal(0, 0.02, (10, 400)))[None] * sizes * LN2, (sizes * LN2)[None]
    found = paired_differences(a, b, sizes, draws=20_000)
    bands = found.together(0.95)
    independent = stats.norm.ppf((1 + 0.95**0.1) / 2) / stats.norm.ppf(0.975)
    assert np.allclose((bands.high - bands.low) / (found.high - found.low), independent, rtol=0.03)
    equal = paired_differences(a[:, [0] * 10], b, sizes)
    assert np.allclose(equal.together(0.95).low, equal.low)


def test_one_result_has_intervals_of_every_level():
    a, b, sizes = (part[..., :5, :] for part in simulated(30, 3, 0.01, 0.01))
    assert np.array_equal(paired_differences(a, b, sizes, level=0.99).low, paired_differences(a, b, sizes).at(0.99).low)


def test_few_clusters_raise_the_detectable_difference_as_they_widen_the_interval():
    many, few = (detectable_difference(0.01, [0.001**2] * 2, 8, clusters=count) for count in (1_000, 10))
    assert many == pytest.approx(0.01 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)), rel=0.01)
    assert few == pytest.approx(0.01 * (stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)), rel=0.01)


def test_strata_with_documents_in_too_few_blocks_get_no_interval():
    sizes = np.zeros((4, 20))
    sizes[0], sizes[1, :8], sizes[2, :7] = 1e3, 1e3, 1e3
    a = sizes * np.random.default_rng(1).normal(1.01, 0.01, (2, 4, 20))
    b = np.stack([sizes, sizes])
    found = paired_differences(a, b, sizes)
    assert np.isfinite(found.estimate).tolist() == [True, True, True, False]
    assert np.isfinite(found.low).tolist() == np.isfinite(found.p).tolist() == [True, True, False, False]
    assert found.clusters.tolist() == [20, 8, 7, 0]
    assert found.high[1] - found.low[1] < 0.2


@pytest.mark.parametrize("seeds", [3, 6])
def test_the_detectable_difference_is_found_four_times_in_five(seeds):
    documents, spread = 0.006, 0.01
    smallest = detectable_difference(documents, [spread**2] * 2, seeds)
    low, high, _ = judged(*simulated(30, seeds, spread, documents, difference=smallest, equal=True, seed=6))
    assert ((low > 0) | (high < 0)).mean() == pytest.approx(0.8, abs=0.07)


def test_nothing_can_be_planned_without_a_known_spread():
    assert np.isnan(detectable_difference(0.01, [float("nan"), 0.01], 4))
    assert np.isnan(detectable_difference(0.01, [0.01, 0.01], 1))


def test_levels_of_several_pairs_add_up_to_the_whole():
    assert level_of_a_pair(0.95, 2) == pytest.approx(0.95)
    assert level_of_a_pair(0.95, 3) == pytest.approx(1 - 0.05 / 3)
