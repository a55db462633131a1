"""Selections: their statistics, their ties, who is left out for lack of a rating, and what is refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.corpus.arm.selection import SAMPLED, CutOff, Selection, first, ranked, select, smallest
from tasks.corpus.arm.traits import Traits
from tasks.errors import InputError
from tasks.records.draws import TIES, random_bits
from tasks.spec import Arm, Pool, with_common_population

NAN = np.nan
COARSE = np.random.default_rng(3).integers(0, 6, 20_000).astype(float)
"""Scores as a model gives them: six values."""


def take(
    arm: Arm, scores: np.ndarray, tokens: np.ndarray | None = None, excluded: np.ndarray | None = None
) -> Selection:
    """A selection from a rated pool in which a document has all ratings or none."""
    population = arm.of(Pool()).population
    traits = Traits(scores, np.isfinite(scores) if population else None)
    return select(arm, Pool(), traits, tokens, excluded)


def test_the_smallest_keys_with_ties_by_draw() -> None:
    keys, documents = np.array([2, 1, 1, 3, 1, 0]), np.array([10, 20, 30, 40, 50, 60], np.uint32)
    tied = sorted([1, 2, 4], key=lambda i: int(random_bits(7, TIES, documents[i : i + 1])[0]))
    for count in (2, 3, 4):
        assert first(keys, count, documents, 7).tolist() == sorted([5, *tied[: count - 1]])
    assert first(keys, 9, documents, 7).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_smallest_key_is_that_of_a_sort() -> None:
    rng, count = np.random.default_rng(2), 3 * SAMPLED + 5
    misleading = np.arange(count)
    misleading[::3] = -1  # all that the sample sees
    for keys in (rng.random(count), rng.integers(0, 4, count).astype(float), rng.permutation(count), misleading):
        ordered = np.sort(keys)
        for place in (1, count // 6, count // 2, count - 1, count):
            assert smallest(keys, place) == ordered[place - 1]


@pytest.mark.parametrize("misleading", [False, True])
def test_the_best_of_many_documents_are_those_of_a_sort(misleading: bool) -> None:
    """Also where the documents that a sample sees are the best, or have no score."""
    scores = np.random.default_rng(4).normal(size=2 * SAMPLED).round(1)
    if misleading:
        scores[::2] += 100
    scores[1::20] = NAN
    excluded = np.arange(0, len(scores), 3)
    draws = random_bits(42, TIES, np.arange(len(scores), dtype=np.uint32))
    ranks = np.lexsort((draws, -scores))
    for share in (0.01, 0.165, 0.9):
        made = take(Arm(share=share, seed=42), scores, excluded=excluded)
        allowed = ranks[np.isfinite(scores[ranks]) & (ranks % 3 > 0)]
        assert made.documents.tolist() == allowed[: len(made.documents)].tolist()
        assert len(made.documents) == int(share * len(allowed) + 0.5)


@pytest.mark.parametrize("different", [1, 2, 50, 1_000_000])
def test_ranks_are_numpys_with_ties_by_draw(different: int) -> None:
    keys = np.random.default_rng(different).integers(-different, different, 20_000) / 4
    keys[keys == 0] *= np.random.default_rng(0).choice([-1, 1], int((keys == 0).sum()))  # -0.0 and 0.0 are equal
    documents = np.random.default_rng(1).permutation(1 << 20)[:20_000].astype(np.uint32)
    for given in (keys, -keys.astype(np.float32), keys.astype(np.int64).astype(np.uint64), keys[:1], keys[:0]):
        draws = random_bits(5, TIES, documents[: len(given)])
        assert (ranked(given, documents[: len(given)], 5) == np.lexsort((draws, given))).all()


@pytest.mark.parametrize("kind", ["top", "bottom"])
def test_ties_at_the_cut_are_drawn_from_the_whole_pool_and_said(kind: str) -> None:
    made = take(Arm(select=kind, share=0.25), COARSE)
    best = 5.0 if kind == "top" else 0.0
    cut = best - 1 if kind == "top" else best + 1
    sharing = np.flatnonzero(cut == COARSE)
    taken = np.intersect1d(sharing, made.documents)
    assert made.cut_off == CutOff(cut, len(sharing), len(taken))
    assert len(taken) == 5_000 - (best == COARSE).sum() and 0 < len(taken) < len(sharing)
    # a fair draw of the places: the mean of so many of them, within 4 standard errors
    spread = sharing.std() * np.sqrt((1 / len(taken)) * (1 - len(taken) / len(sharing)))
    assert abs(taken.mean() - sharing.mean()) < 4 * spread


def test_another_seed_draws_other_ties_and_the_same_seed_the_same() -> None:
    def taken(seed: int) -> set[int]:
        return set(take(Arm(share=0.25, seed=seed), COARSE).documents.tolist())

    assert taken(1) == taken(1)
    common = taken(1) & taken(2)
    assert {i for i in common if COARSE[i] == 5} == set(np.flatnonzero(COARSE == 5).tolist())
    assert len(common) < 5_000


@pytest.mark.parametrize("kind", ["top", "bottom", "random", "temperature"])
@pytest.mark.parametrize("order", ["best-first", "worst-first", "shuffled"])
def test_a_smaller_share_is_part_of_a_larger_one(kind: str, order: str) -> None:
    small, large = (take(Arm(select=kind, share=share, order=order), COARSE).documents for share in (0.1, 0.2))
    assert set(small.tolist()) < set(large.tolist())
    place = {document: i for i, document in enumerate(large.tolist())}
    places = [place[document] for document in small.tolist()]
    assert places == sorted(places), "in the same order"


def test_within_the_order_ties_are_drawn_too() -> None:
    order = take(Arm(select="all"), COARSE).documents
    assert (np.diff(COARSE[order]) <= 0).all()
    best = order[: int((COARSE == 5).sum())].astype(int)
    assert abs(np.corrcoef(np.arange(len(best)), best)[0, 1]) < 4 / np.sqrt(len(best))


def test_a_document_without_a_score_is_taken_by_no_selection_and_by_no_control() -> None:
    scores = np.where(np.arange(20_000) % 4 == 0, NAN, COARSE)
    for kind in ("top", "bottom", "temperature", "random", "all"):
        made = take(Arm(select=kind, share=0.5), scores)
        assert (made.population, made.unrated) == (15_000, 5_000)
        assert len(made.documents) == (15_000 if kind == "all" else 7_500)
        assert not np.isnan(scores[made.documents]).any()
    with pytest.raises(
        InputError, match=r"None of the 9 documents that the arm top16 may take has the ratings that it asks"
    ):
        take(Arm(), np.full(9, NAN))


def test_a_population_of_every_document_is_for_controls_and_shares_refer_to_it() -> None:
    scores = np.where(np.arange(1_000) % 4 == 0, NAN, 1.0)
    made = take(Arm(select="random", share=0.5, population=()), scores)
    assert (made.population, made.unrated, len(made.documents)) == (1_000, 0, 500)
    assert np.isnan(scores[made.documents]).any()
    assert len(take(Arm(share=0.75, population=()), scores).documents) == 750
    with pytest.raises(
        InputError, match=r"asks for 800 of 1,000 documents, but only 750 have a score: lower its share"
    ):
        take(Arm(share=0.8, population=()), scores)


def test_unrated_documents_may_rank_lowest() -> None:
    scores = np.array([2.0, NAN, 1.0, NAN, -5.0, 3.0])
    lowest = {"unrated": "lowest", "share": 0.5}
    assert take(Arm(**lowest), scores).documents.tolist() == [5, 0, 2]
    worst = take(Arm(select="bottom", order="worst-first", **lowest), scores)
    assert sorted(worst.documents[:2].tolist()) == [1, 3] and worst.documents[2] == 4
    assert (worst.population, worst.unrated, worst.cut_off) == (6, 0, CutOff(-5.0, 1, 1))
    every = take(Arm(select="top", unrated="lowest", share=0.9), scores)
    assert every.documents[:4].tolist() == [5, 0, 2, 4] and every.cut_off == CutOff(None, 2, 1)
    drawn = take(Arm(select="temperature", unrated="lowest", share=0.66), scores).documents
    assert sorted(drawn.tolist()) == [0, 2, 4, 5]


def test_a_comparison_takes_every_rating_that_one_of_its_arms_uses() -> None:
    pool = Pool(score={"a": 1.0, "b": 0.0, "c": 1.0})
    top, control = Arm(), Arm(name="rand16", select="random")
    assert with_common_population(pool, [top, control]) == [top, control]
    every = control.model_copy(update={"population": ()})
    assert with_common_population(pool, [every, every]) == [every, every]
    for arms in ([top, every], [top.model_copy(update={"population": ()}), every]):
        assert [arm.population for arm in with_common_population(pool, arms)] == [("a", "c")] * 2
    other = control.model_copy(update={"population": ("b",)})
    assert [arm.population for arm in with_common_population(pool, [top, other])] == [("a", "b", "c")] * 2


def test_temperature_draws_by_exp_of_score_over_temperature() -> None:
    # one of two kinds of documents is drawn first with probability exp(s/T) / sum exp(s/T)
    scores = np.tile([0.0, 2.0], 10_000)
    arm = Arm(select="temperature", temperature=2.0, share=0.001)
    drawn = [take(arm.model_copy(update={"seed": s}), scores).documents for s in range(50)]
    part = np.mean(scores[np.concatenate(drawn)] > 0)
    expected = np.e / (1 + np.e)
    assert abs(part - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


def test_a_cold_temperature_is_the_top_and_a_hot_one_is_random() -> None:
    scores = np.random.default_rng(0).normal(size=20_000)
    top = set(take(Arm(), scores).documents)
    cold = set(take(Arm(select="temperature", temperature=1e-4), scores).documents)
    hot = set(take(Arm(select="temperature", temperature=1e4), scores).documents)
    assert len(top & cold) > 0.99 * len(top)
    assert abs(len(top & hot) / len(top) - 0.165) < 0.02
    coldest = take(Arm(select="temperature", temperature=1e-6), 1e300 * scores).documents
    assert set(coldest) == top, "no score overflows"
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.000001"):
        Arm(temperature=1e-320)


def test_a_token_budget_is_reached_and_not_by_more_than_a_document() -> None:
    rng = np.random.default_rng(1)
    tokens, scores = rng.integers(1, 900, 20_000), rng.normal(size=20_000)
    for kind in ("top", "bottom", "random", "temperature", "all"):
        chosen = take(Arm(select=kind, tokens=100_000), scores, tokens).documents
        assert 100_000 <= tokens[chosen].sum() < 100_900
    with pytest.raises(
        InputError, match=r"asks for 99,000,000 tokens, but the documents .* hold 9,017,710: ask for fewer"
    ):
        take(Arm(tokens=99_000_000), scores, tokens)


def test_a_share_of_tokens_is_of_the_populations_and_holds_as_many_of_short_documents_as_of_long_ones() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=20_000)
    tokens = (200 * np.exp(scores)).astype(int) + 1  # the better, the longer
    population = np.arange(100, 20_000)
    scores[100:1_000] = NAN  # no part of the population
    held = int(tokens[1_000:].sum())
    taken = {}
    for kind in ("top", "bottom", "random", "temperature"):
        arm = Arm(select=kind, share=0.1, share_of="tokens", order="shuffled")
        taken[kind] = take(arm, scores, tokens, np.arange(100)).documents
        assert np.isin(taken[kind], population).all()
        assert 0 <= tokens[taken[kind]].sum() - int(0.1 * held + 0.5) < tokens.max()
    assert len(taken["bottom"]) > 5 * len(taken["top"])
    assert set(taken["top"]) <= set(take(Arm(share=0.2, share_of="tokens"), scores, tokens, np.arange(100)).documents)
    whole = take(Arm(select="all", share_of="tokens"), scores)
    assert len(whole.documents) == 19_100, "everything, counted or not"
    with pytest.raises(InputError, match="asks for a share of the tokens, but the pool has no column 'token_count'"):
        take(Arm(share_of="tokens"), scores)


def test_unknown_token_counts_are_taken_as_the_mean() -> None:
    tokens = np.array([100, -1, 300, -1])
    chosen = take(Arm(select="all", tokens=301), np.zeros(4), tokens).documents
    assert sorted(chosen.tolist()) == [0, 1, 2]


def test_excluded_documents_are_not_taken_and_the_others_keep_their_numbers() -> None:
    scores = np.arange(10.0)
    chosen = take(Arm(share=0.5), scores, None, np.array([0, 7, 9])).documents
    assert chosen.tolist() == [8, 6, 5, 4]
    every = take(Arm(select="all", order="worst-first"), scores, None, np.array([0, 1, 2, 5, 9])).documents
    assert every.tolist() == [3, 4, 6, 7, 8]
