"""What a verdict costs: more where runs scatter more, a start a run or one start in all, and never less sure than measured."""

import json

import numpy as np
import pytest

from benchmarks.verdict.cost import MEASURED, Row, single, stopped
from tasks.verdict.paired import detectable_difference


def test_a_single_look_has_the_fewest_replicates_with_the_power():
    for pairs, variances in ((False, [4.0, 4.0]), (True, [4.0])):
        found = int(single(2.0, pairs))
        assert detectable_difference(0, variances, found) <= 1 < detectable_difference(0, variances, found - 1)


def test_rounds_take_fewer_replicates_than_one_look_with_the_same_power():
    assert 3 <= stopped(0.25, False) < 3.5
    assert 0.6 * single(0.9, True) < stopped(0.9, True) < single(0.9, True)


def test_one_process_starts_once_and_few_runs_leave_much_open():
    cold, warm = Row(6, "upstream", 0.1, 8, cold=30.0), Row(6, "quiet", 0.01, 3, cold=30.0, warm=10.0)
    assert cold.seconds(np.array([4.0])) == pytest.approx(8 * 30)
    assert warm.seconds(np.array([4.0])) == pytest.approx(20 + 8 * 10)
    wide, narrow = (
        np.ptp(np.log(np.quantile(row.drawn(np.random.default_rng(1)), [0.025, 0.975]))) for row in (warm, cold)
    )
    assert wide > 2 * narrow
    assert np.isnan(Row(6, "nanochat", None, 0, None).drawn(np.random.default_rng(1))).all()


def test_every_measured_row_says_where_it_comes_from():
    rows = json.loads(MEASURED.read_text())["rows"]
    assert {(row["depth"], row["way"]) for row in rows} == {
        (d, w) for d in (6, 12) for w in ("upstream", "nanochat", "quiet")
    }
    assert all(row.pop("from") and Row(**row) for row in rows)
