"""What a ladder predicts. What its intervals cover is measured by `benchmarks.verdict ladder`, here in its short form."""

import numpy as np
import pytest

from benchmarks.verdict.ladder import BOUNDS, SHORT, Found, flops
from tasks.errors import InputError
from tasks.verdict.ladder import predict

DEPTHS = (4, 6, 8, 10, 12)
COMPUTE = [flops(depth) for depth in DEPTHS]
X = np.log(np.array(COMPUTE) / COMPUTE[0])
AT_20 = float(np.log(flops(20) / COMPUTE[0]))
PRECISE = np.full((1, 5), 1e-5)


def predicted(differences, errors=PRECISE, **more):
    found = predict(COMPUTE, np.array([differences]), errors, flops(20), **more)
    return float(found.quantile(0.5)[0]), *(float(end[0]) for end in found.interval())


def test_intervals_at_90_percent_cover_85_to_95_percent_of_all_ladders_and_of_those_that_align_by_luck():
    parts = [case.found(600) for case in SHORT]
    for case, found in zip(SHORT, parts, strict=True):
        whole = Found.joined(found)
        assert min(whole.percent(), whole.percent_lowest()) >= BOUNDS[0], case
    whole = Found.joined([part for found in parts for part in found])
    assert BOUNDS[0] <= whole.percent() <= BOUNDS[1] and BOUNDS[0] <= whole.percent_lowest() <= BOUNDS[1]
    assert 0.005 < np.median(whole.width) < 0.03, "an interval is no use that covers by being wide"


def test_three_rungs_on_a_line_by_luck_are_not_taken_at_their_word():
    line, errors = 0.01 - 0.001 * X[:3], np.full((1, 3), 1e-5)
    on_it, off_it = (
        predict(COMPUTE[:3], np.array([line + off * np.array([0, 1, 0])]), errors, COMPUTE[3]) for off in (0, 0.006)
    )
    low, high = on_it.interval()
    assert 0.005 < high - low < 0.5 * np.diff(off_it.interval(), axis=0)
    assert on_it.between[0] > 5e-4


@pytest.mark.parametrize(
    "law",
    [lambda x: 0.02 - 0.003 * x, lambda x: 0.003 * x - 0.01, lambda x: 0.03 * np.exp(-0.15 * x)],
    ids=["linear", "changing sign", "power law"],
)
def test_a_law_without_noise_is_found_again(law):
    middle, low, high = predicted(law(X))
    assert middle == pytest.approx(law(AT_20), abs=0.0025), "to what scales are likely to be off it"
    assert low <= law(AT_20) <= high


def test_scatter_between_scales_widens_the_interval_whatever_the_replicates():
    off = 0.002 * np.array([1, -1, 1, -1, 1])
    smooth = predicted(0.01 - 0.001 * X)
    rough = predicted(0.01 - 0.001 * X + off)
    assert rough[2] - rough[1] > 2 * (smooth[2] - smooth[1])
    found = predict(COMPUTE, np.array([0.01 - 0.001 * X + off]), PRECISE, flops(20))
    assert found.between[0] == pytest.approx(0.0025, rel=0.3)


def test_the_documents_error_widens_the_interval_once_and_moves_no_rung():
    errors = np.full((1, 5), 1e-3)
    alone, shared = predicted(0 * X, errors), predicted(0 * X, errors, documents=0.05)
    assert shared[0] == pytest.approx(alone[0], abs=1e-6)
    assert shared[2] - shared[1] == pytest.approx(2 * 1.645 * 0.05, rel=0.02)


@pytest.mark.parametrize(
    ("compute", "errors", "target", "words"),
    [
        ([1e15, 2e15], [1e-3] * 2, 1e16, "has 2 scales: give at least 3"),
        ([1e15, 1e15, 2e15], [1e-3] * 3, 1e16, "the same compute"),
        ([1e15, 2e15, 3e15], [1e-3] * 3, 3e15, "not above all scales"),
        ([1e15, 2e15, 3e15], [1e-3, float("nan"), 1e-3], 1e16, "at least 2 replicates"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_remedy(compute, errors, target, words):
    with pytest.raises(InputError, match=words):
        predict(compute, np.zeros((1, len(compute))), np.array([errors]), target)
