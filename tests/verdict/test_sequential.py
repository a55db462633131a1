"""Levels of looks, and what the intervals of a pair decide. The rates themselves are those of `benchmarks.verdict sequential`."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import ttest_1samp, ttest_ind

from tasks.records.stopping import Look, StoppingRule
from tasks.verdict.sequential import decide, false_alarms, look_alpha, spent

RULE = StoppingRule(margin=0.004, max_replicates=8)


def levels(looks, *, paired):
    return [look_alpha(RULE, looks[: i + 1], paired=paired) for i in range(len(looks))]


def crossed(p_values, looks, *, paired):
    """How often one of the looks at streams crosses its level."""
    pairs = zip(looks, levels(looks, paired=paired), strict=True)
    return np.any([p_values(n) <= alpha for n, alpha in pairs], axis=0).mean()


def test_the_first_look_has_what_may_be_spent_by_then_and_a_single_look_all_of_it():
    assert look_alpha(RULE, [4], paired=True) == pytest.approx(spent(0.5, 0.05), rel=0.05)
    assert spent(0.5, 0.05) == pytest.approx(0.00557, abs=1e-5), "Lan and DeMets: 2 - 2 Phi(1.96 / sqrt(0.5))"
    assert look_alpha(RULE, [8], paired=True) == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("looks", [(3, 4, 5, 6, 7, 8), (2, 8), (4, 6, 8)])
def test_streams_of_t_statistics_cross_all_levels_together_as_often_as_said(looks):
    a, b = np.random.default_rng(7).normal(size=(2, 20_000, 8))
    alone = crossed(lambda n: ttest_1samp(a[:, :n], 0, axis=1).pvalue, looks, paired=True)
    assert alone == pytest.approx(0.05, abs=0.004)
    unlike = crossed(lambda n: ttest_ind(a[:, :n], 0.2 * b[:, :n], axis=1, equal_var=False).pvalue, looks, paired=False)
    assert unlike == pytest.approx(0.05, abs=0.004)


def test_a_look_that_was_not_planned_takes_from_those_after_it_and_none_is_free_beyond_the_most():
    assert look_alpha(RULE, [3, 7, 8]) < look_alpha(RULE, [3, 8])
    assert look_alpha(RULE, [8, 9]) == 0
    assert look_alpha(RULE, [3, 3, 8]) == look_alpha(RULE, [3, 8]), "the same replicates seen again are no new look"
    assert look_alpha(RULE, [1]) == 0 and look_alpha(RULE, []) == 0


def test_an_error_too_small_to_be_known_is_left_to_later_looks():
    many = StoppingRule(max_replicates=32)
    assert look_alpha(many, [3]) == 0
    assert look_alpha(many, [3, 32]) == look_alpha(many, [32]) > 0.04


def test_looks_without_a_rule_add_up():
    assert false_alarms((3,)) == pytest.approx(0.05, abs=0.002)
    assert false_alarms(tuple(range(3, 9))) > 0.12


def looks(*intervals, first=3):
    return [Look(replicates=first + i, low=low, high=high) for i, (low, high) in enumerate(intervals)]


@pytest.mark.parametrize(
    ("intervals", "decision"),
    [
        ([(-0.03, -0.01)], "better"),
        ([(0.01, 0.03)], "worse"),
        ([(-0.003, 0.002)], "equivalent"),
        ([(-0.003, -0.001)], "equivalent"),
        ([(-0.005, -0.001)], "better"),
        ([(-0.005, 0.001)], "go on"),
        ([(None, None)], "go on"),
        ([], "go on"),
        ([(-0.005, 0.001)] * 6, "undecided"),
        ([(-0.05, 0.05), (-0.03, -0.01), (-0.03, 0.01)], "better"),
    ],
)
def test_the_first_interval_that_is_clear_decides(intervals, decision):
    assert decide(RULE, looks(*intervals)) == decision


def test_without_a_margin_nothing_is_equivalent_and_the_last_round_ends_undecided():
    rule = StoppingRule(max_replicates=8)
    assert decide(rule, looks((-0.003, 0.002))) == "go on"
    assert decide(rule, looks((-0.003, 0.002)), last=True) == "undecided"


def test_a_rule_lists_its_looks_and_refuses_what_has_no_order():
    assert StoppingRule(first_look=2, round=4, max_replicates=8).looks == (2, 6, 8)
    assert StoppingRule(first_look=8).looks == (8,)
    with pytest.raises(ValidationError, match="9 replicates are more than max_replicates"):
        StoppingRule(first_look=9)
