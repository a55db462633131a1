"""Selections: their statistics, their ties, and what is refused."""

import numpy as np
import pytest

from tasks.corpus.arm.selection import first, select, stable_order
from tasks.errors import InputError
from tasks.spec import Arm, Pool


def test_the_smallest_keys_with_ties_by_position() -> None:
    keys = np.array([2, 1, 1, 3, 1, 0])
    assert first(keys, 3).tolist() == [1, 2, 5]
    assert first(keys, 4).tolist() == [1, 2, 4, 5]
    assert first(keys, 9).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("different", [1, 2, 50, 1_000_000])
def test_the_quick_stable_sort_is_numpys(different: int) -> None:
    keys = np.random.default_rng(different).integers(-different, different, 20_000) / 4
    keys[keys == 0] *= np.random.default_rng(0).choice([-1, 1], int((keys == 0).sum()))  # -0.0 and 0.0 are equal
    for given in (keys, -keys.astype(np.float32), keys.astype(np.int64).astype(np.uint64), keys[:1], keys[:0]):
        assert (stable_order(given) == np.argsort(given, kind="stable")).all()


def test_temperature_draws_by_exp_of_score_over_temperature() -> None:
    # one of two kinds of documents is drawn first with probability exp(s/T) / sum exp(s/T)
    scores = np.tile([0.0, 2.0], 10_000)
    arm = Arm(select="temperature", temperature=2.0, share=0.001)
    drawn = [select(arm.model_copy(update={"seed": s}), Pool(), scores, None) for s in range(50)]
    part = np.mean(scores[np.concatenate(drawn)] > 0)
    expected = np.e / (1 + np.e)
    assert abs(part - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


def test_a_cold_temperature_is_the_top_and_a_hot_one_is_random() -> None:
    scores = np.random.default_rng(0).normal(size=20_000)
    top = set(select(Arm(), Pool(), scores, None))
    cold = set(select(Arm(select="temperature", temperature=1e-4), Pool(), scores, None))
    hot = set(select(Arm(select="temperature", temperature=1e4), Pool(), scores, None))
    assert len(top & cold) > 0.99 * len(top)
    assert abs(len(top & hot) / len(top) - 0.165) < 0.02


def test_a_token_budget_is_reached_and_not_by_more_than_a_document() -> None:
    rng = np.random.default_rng(1)
    tokens, scores = rng.integers(1, 900, 20_000), rng.normal(size=20_000)
    for kind in ("top", "bottom", "random", "temperature", "all"):
        chosen = select(Arm(select=kind, tokens=100_000), Pool(), scores, tokens)
        assert 100_000 <= tokens[chosen].sum() < 100_900
    with pytest.raises(InputError, match="asks for 99,000,000 tokens, but the pool pool holds"):
        select(Arm(tokens=99_000_000), Pool(), scores, tokens)


def test_unknown_token_counts_are_taken_as_the_mean() -> None:
    tokens = np.array([100, -1, 300, -1])
    chosen = select(Arm(select="all", tokens=301), Pool(), np.zeros(4), tokens)
    assert chosen.tolist() == [0, 1, 2]


def test_excluded_documents_are_not_taken_and_the_others_keep_their_numbers() -> None:
    scores = np.arange(10.0)
    chosen = select(Arm(share=0.5), Pool(), scores, None, np.array([0, 7, 9]))
    assert chosen.tolist() == [8, 6, 5, 4]
    every = select(Arm(select="all", order="worst-first"), Pool(), scores, None, np.array([0, 1, 2, 5, 9]))
    assert every.tolist() == [3, 4, 6, 7, 8]
