"""Task scores of arms: t-tests over seeds, and what they cannot say."""

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from tasks.errors import InputError
from tasks.reports.report import write_verdict
from tasks.verdict.answers import compare
from tasks.verdict.judge import judge


@pytest.mark.parametrize("pairing", ["seed", "none"])
def test_two_arms_are_the_t_test_of_scipy(bench, pairing):
    arms = bench.arms(seeds=4, top16=0.0, rand16=0.0)
    values = {label: bench.core(runs, i, 0.1 * i) for i, (label, runs) in enumerate(arms.items())}
    verdict = judge(bench.root, "core", arms, core=True, pairing=pairing)
    rows = verdict.comparisons[0].tasks
    assert [row.label for row in rows] == ["CORE", "arc", "squad"]
    for i, row in enumerate(rows):
        scores = values["top16"][:, i], values["rand16"][:, i]
        found = ttest_rel(*scores) if pairing == "seed" else ttest_ind(*scores, equal_var=False)
        interval = found.confidence_interval(0.95)
        assert row.p == pytest.approx(found.pvalue)
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
    report = (write_verdict(bench.root, verdict).path / "report.html").read_text()
    assert "CORE tasks" in report and "squad" in report


@pytest.mark.parametrize("values", [[[0.1]], [[0.1], [0.1]]])
def test_one_seed_or_no_spread_gives_no_interval(values):
    (row,) = compare("a", "b", (["CORE"], {"a": np.array(values), "b": np.array(values) + 0.1}))
    assert row.difference == pytest.approx(-0.1)
    assert (row.low, row.high, row.p) == (None, None, None)


def test_answers_to_other_questions_are_refused(bench):
    arms = bench.arms(seeds=2, top16=0.0, rand16=0.0)
    bench.core(arms["top16"])
    bench.core(arms["rand16"], bundle="another")
    with pytest.raises(InputError, match="answers other questions than"):
        judge(bench.root, "core", arms, core=True)


def test_a_verdict_of_another_target_lies_beside_the_first(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    made = [write_verdict(bench.root, judge(bench.root, "t", arms, target=target)) for target in ("all", "upper half")]
    assert made[0].name != made[1].name and not made[1].reused
