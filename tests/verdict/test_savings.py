import numpy as np
import pytest

from tasks.verdict.savings import curve_of, mean_curve, tokens_saved

TOKENS = np.array([0.0, 1e6, 2e6, 4e6, 8e6])


def log_curve(slope=0.1):
    with np.errstate(divide="ignore"):
        values = 1.0 - slope * (np.log(TOKENS) - np.log(8e6))
    return TOKENS, np.where(TOKENS > 0, values, 9.0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_logarithmic_curve_gives_the_share_exactly(share):
    difference = -0.1 * np.log(1 - share)
    assert tokens_saved(log_curve(), difference) == pytest.approx(share)


def test_no_difference_saves_nothing():
    assert tokens_saved(log_curve(), 0.0) == pytest.approx(0.0)


def test_more_than_the_curve_covers_is_not_guessed():
    assert tokens_saved(log_curve(), 0.5) is None
    assert tokens_saved((TOKENS[:1], np.array([1.0])), 0.1) is None
    assert tokens_saved((np.array([]), np.array([])), 0.1) is None


def test_the_mean_curve_takes_the_tokens_that_all_seeds_share():
    lines = [{"kind": "eval", "tokens": t, "bpb": b} for t, b in ((10, 3.0), (20, 2.0))] + [
        {"kind": "train", "tokens": 15}
    ]
    tokens, values = mean_curve([curve_of(lines), (np.array([20.0, 30.0]), np.array([4.0, 1.0]))])
    assert tokens.tolist() == [20] and values.tolist() == [3.0]
    assert len(mean_curve([])[0]) == 0


def test_the_curve_of_some_deciles_weighs_them_by_bytes():
    by_decile = [float(i) for i in range(10)]
    lines = [{"kind": "eval", "tokens": 10, "bpb": 9.0, "bpb_by_decile": by_decile}]
    sizes = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 6])
    assert curve_of(lines)[1].tolist() == [9.0]
    assert curve_of(lines, sizes, slice(5, 10))[1].tolist() == [pytest.approx((5 + 6 + 7 + 8 + 6 * 9) / 10)]
