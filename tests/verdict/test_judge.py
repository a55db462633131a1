import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.records.verdict import HoldoutSize
from tasks.reports.artifacts import verdict_markdown
from tasks.reports.report import verdict_report
from tasks.spec import Pool
from tasks.verdict import looks
from tasks.verdict.judge import judge
from tasks.verdict.wording import with_interval


def test_a_planted_difference_is_found_with_its_size_and_its_price_in_tokens(bench):
    verdict = judge(bench.root, "top-vs-random", bench.arms(seeds=3, top16=-0.05, rand16=0.0))
    (pair,) = verdict.comparisons
    assert (pair.conclusion, pair.better) == ("better", "top16")
    assert pair.low <= -0.05 <= pair.high < 0
    assert pair.p < 0.05
    # The planted curves fall by 0.5 a unit of ln(tokens), so a difference d is worth 1 - exp(-d / 0.5) of the tokens.
    assert pair.tokens_saved.estimate == pytest.approx(1 - np.exp(pair.difference / 0.5), abs=0.01)
    assert pair.sentence.startswith("top16 is better than rand16 by 0.0")
    assert pair.tokens_saved.low < pair.tokens_saved.estimate < pair.tokens_saved.high
    assert pair.tokens_saved.budget == 925_000, "whole batches of 25,000 tokens of the million"
    assert "fewer tokens by the measured loss curves, interval " in pair.sentence


def test_no_difference_is_said_with_what_more_seeds_would_show(bench):
    verdict = judge(bench.root, "null", bench.arms(seeds=2, top16=0.0, rand16=0.0))
    (pair,) = verdict.comparisons
    assert pair.conclusion == "not distinguishable" and pair.better is None
    assert pair.sentence.startswith("top16 and rand16 are not distinguishable")
    assert "more seed" in pair.sentence and "would show a difference of" in pair.sentence
    smallest = [plan.difference for plan in pair.detectable]
    assert smallest == sorted(smallest, reverse=True) and pair.detectable[0].seeds == 2


def test_one_seed_makes_no_verdict_however_large_the_difference(bench):
    verdict = judge(bench.root, "one", bench.arms(seeds=1, top16=-0.3, rand16=0.0))
    (pair,) = verdict.comparisons
    assert pair.conclusion == "one seed" and pair.better is None and pair.high < 0
    assert "train at least 2 seeds an arm" in pair.sentence
    assert pair.degrees_of_freedom is None and [arm.deviation for arm in verdict.arms] == [None, None]


def test_numbers_of_arms_are_byte_weighted_and_by_seed(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    verdict = judge(bench.root, "numbers", arms)
    arm = verdict.arms[1]
    expected = []
    for run in arms["rand16"]:
        table = pq.read_table(bench.root.open(f"runs/{run}/result").path / "scores.parquet")
        expected.append(table["nats"].to_numpy().sum() / table["bytes"].to_numpy().sum() / np.log(2))
    assert arm.bpb_by_seed == pytest.approx(expected)
    assert arm.bpb == pytest.approx(np.mean(expected))
    assert arm.seeds == (1, 2) and list(arm.runs) == arms["rand16"]
    (pair,) = verdict.comparisons
    assert pair.difference == pytest.approx(verdict.arms[0].bpb - arm.bpb)


def test_strata_partition_the_holdout_and_show_where_the_difference_is(bench):
    runs = {
        "top16": [bench.run("top16", seed, by_score=-0.05) for seed in (1, 2, 3)],
        "rand16": [bench.run("rand16", seed) for seed in (1, 2, 3)],
    }
    (pair,) = judge(bench.root, "strata", runs).comparisons
    for kind in ("all", "half", "decile", "length", "source"):
        rows = [row for row in pair.strata if row.kind == kind]
        assert sum(row.documents for row in rows) == 600
        assert sum(row.bytes for row in rows) == bench.bytes.sum()
    deciles = {row.label: row for row in pair.strata if row.kind == "decile"}
    assert deciles["decile 10"].difference < deciles["decile 1"].difference - 0.1
    assert {row.label for row in pair.strata if row.kind == "source"} == {"CC-MAIN", "books"}


def test_unrated_documents_count_in_all_and_in_no_half_or_decile(bench):
    bench.score[::5] = np.nan
    arms = {"top16": [bench.run("top16", s, -0.05) for s in (1, 2)], "rand16": [bench.run("rand16", s) for s in (1, 2)]}
    (pair,) = judge(bench.root, "unrated", arms).comparisons
    counts = {kind: [row.documents for row in pair.strata if row.kind == kind] for kind in ("all", "half", "decile")}
    assert counts == {"all": [600], "half": [240, 240], "decile": [48] * 10}
    assert sum(row.documents for row in pair.strata if row.kind == "length") == 600


def test_a_target_decides_by_one_half_of_the_holdout_and_says_so(bench):
    """An arm that is better on well-rated documents and as much worse on the others: which one is better depends."""
    runs = {
        "top16": [bench.run("top16", seed, 0.15, by_score=-0.05) for seed in (1, 2, 3)],
        "rand16": [bench.run("rand16", seed) for seed in (1, 2, 3)],
    }
    found = {t: judge(bench.root, "t", runs, target=t).comparisons[0] for t in ("all", "upper half", "lower half")}
    assert (found["upper half"].better, found["lower half"].better) == ("top16", "rand16")
    assert "bits per byte on the better-rated half of the holdout" in found["upper half"].sentence
    rows = {row.label: row for row in found["all"].strata if row.kind == "half"}
    assert rows["better-rated half"].difference == found["upper half"].difference
    assert abs(found["all"].difference) < 0.02
    with pytest.raises(InputError, match="target 'best' is unknown"):
        judge(bench.root, "t", runs, target="best")


def test_three_arms_make_three_pairs_with_wider_intervals(bench):
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    (alone,) = judge(bench.root, "two", arms).comparisons
    verdict = judge(bench.root, "three", arms | bench.arms(seeds=3, bottom16=0.05))
    pairs = [(pair.a, pair.b) for pair in verdict.comparisons]
    again = verdict.comparisons[0]
    assert pairs == [("top16", "rand16"), ("top16", "bottom16"), ("rand16", "bottom16")]
    assert verdict.level_of_a_pair == pytest.approx(1 - 0.05 / 3)
    assert again.low < alone.low and again.high > alone.high and again.errors.seeds == alone.errors.seeds
    assert "98.3 % interval" in again.sentence
    assert again.p == pytest.approx(3 * alone.p)


def test_a_caveat_of_several_pairs_is_said_once_with_the_pairs_that_it_is_of(bench):
    verdict = judge(bench.root, "three", bench.arms(seeds=3, top16=-0.05, rand16=0.0, bottom16=0.05))
    everywhere = "Documents of the pool decide, which favors the arm that resembles the pool."
    rand, bottom = (
        f"The interval is not for other draws of {arm}: the runs are all on one." for arm in ("rand16", "bottom16")
    )
    assert [rand in pair.sentence for pair in verdict.comparisons] == [True, False, True]
    *own, of_all, of_rand, of_bottom = verdict.sentences
    assert [said.split(" is better")[0] for said in own] == ["top16", "top16", "rand16"]
    assert of_all.startswith("Of all pairs: Documents")
    assert of_rand == f"Of top16 - rand16, rand16 - bottom16: {rand}"
    assert of_bottom == f"Of top16 - bottom16, rand16 - bottom16: {bottom}"
    for shown in (" ".join(verdict.sentences), verdict_markdown(verdict), verdict_report(bench.root, verdict)):
        assert [shown.count(caveat) for caveat in (everywhere, rand, bottom, "98.3 % interval is for new")] == [1] * 4
    older = tuple(pair.model_copy(update={"caveats": ()}) for pair in verdict.comparisons)
    whole = [pair.sentence for pair in verdict.comparisons]
    assert verdict.model_copy(update={"comparisons": older}).sentences == whole and everywhere in whole[2]


def shared(bench, seeds, common):
    """Two equal arms whose seeds move both by `common`, and each by 0.0005 more."""
    random = np.random.default_rng(4)
    moves = common * random.normal(size=(seeds, 1)) + 0.0005 * random.normal(size=(seeds, 2))
    return {
        arm: [bench.run(arm, seed + 1, moves[seed, i], spread=0.0) for seed in range(seeds)]
        for i, arm in enumerate(("top16", "rand16"))
    }


def test_many_shared_seeds_are_paired_by_a_rule_that_no_score_changes(bench):
    arms = shared(bench, 4, 0.02)
    (pair,) = judge(bench.root, "paired", arms).comparisons
    assert pair.pairing.paired and pair.pairing.shared == 4
    assert pair.pairing.correlation > 0.95 and pair.pairing.low < pair.pairing.correlation < pair.pairing.high
    assert pair.pairing.other.high - pair.pairing.other.low > 3 * (pair.high - pair.low)
    assert "new seeds. Paired by seed (correlation 1.00)" in pair.sentence and pair.warnings == ()
    (pair,) = judge(bench.root, "none", arms, pairing="none").comparisons
    assert "new seeds. Not paired by seed (correlation 1.00)" in pair.sentence
    (pair,) = judge(bench.root, "unlike", shared(bench, 4, 0.0)).comparisons
    assert pair.pairing.paired


def test_two_seeds_are_paired_only_if_asked_for(bench):
    arms = shared(bench, 2, 0.02)
    found = {how: judge(bench.root, how, arms, pairing=how).comparisons[0] for how in ("auto", "seed", "none")}
    assert [found[how].pairing.paired for how in found] == [False, True, False]
    assert found["auto"].high == found["none"].high == found["seed"].pairing.other.high
    assert found["seed"].high == found["auto"].pairing.other.high
    assert found["seed"].warnings == () and found["auto"].warnings == ("two seeds",)


def test_runs_are_paired_by_their_seed_and_not_by_their_place(bench):
    arms = shared(bench, 4, 0.02)
    turned = {"top16": arms["top16"], "rand16": arms["rand16"][::-1]}
    first, second = (judge(bench.root, "v", given).comparisons for given in (arms, turned))
    assert first == second


def test_pairing_that_the_seeds_do_not_allow_is_refused(bench):
    arms = {"top16": [bench.run("top16", seed) for seed in (1, 2)], "rand16": [bench.run("rand16", s) for s in (2, 3)]}
    with pytest.raises(InputError, match="the same seeds in both arms, but they have 1, 2 and 2, 3"):
        judge(bench.root, "x", arms, pairing="seed")
    with pytest.raises(InputError, match="pairing 'both' is unknown: take one of auto, seed, none"):
        judge(bench.root, "x", arms, pairing="both")
    (pair,) = judge(bench.root, "x", arms).comparisons
    assert not pair.pairing.paired and pair.pairing.other is None and pair.pairing.shared == 1


def test_opposed_seeds_are_warned_of_where_they_are_not_paired(bench):
    arms = {
        "top16": [bench.run("top16", seed, 0.01 * seed, spread=0.0001) for seed in range(1, 7)],
        "rand16": [bench.run("rand16", seed, -0.01 * seed, spread=0.0001) for seed in range(1, 7)],
    }
    (pair,) = judge(bench.root, "opposed", arms, pairing="none").comparisons
    assert pair.warnings == ("opposed seeds",) and "pair by seed" in pair.sentence
    assert judge(bench.root, "opposed", arms).comparisons[0].warnings == ()


def test_what_weakens_an_interval_is_said(bench):
    (pair,) = judge(bench.root, "two", bench.arms(seeds=2, top16=0.0, rand16=0.0)).comparisons
    assert pair.warnings == ("two seeds",) and "only two seeds" in pair.sentence
    bench.cluster = np.arange(600) // 60
    (pair,) = judge(bench.root, "few", bench.arms(seeds=3, top8=0.0, rand8=0.0)).comparisons
    assert pair.warnings == ("few clusters",) and "fewer than 20 blocks" in pair.sentence
    bench.cluster = np.arange(600) // 200
    (pair,) = judge(bench.root, "single", bench.arms(seeds=3, top4=0.0, rand4=0.0)).comparisons
    assert pair.warnings == ("single documents",)
    bench.cluster, bench.bytes = np.arange(600) // 20, np.where(np.arange(600) % 60, 500, 10_000_000)
    (pair,) = judge(bench.root, "long", bench.arms(seeds=3, top2=0.0, rand2=0.0)).comparisons
    assert pair.warnings == ("long documents",) and "Few long documents hold most bytes" in pair.sentence
    bench.bytes = np.where(np.argsort(np.argsort(bench.score)) % 150, 500, 10_000_000)
    bench.bytes[bench.score > np.median(bench.score)] = 500
    arms = bench.arms(seeds=3, top1=0.0, rand1=0.0)
    said = {
        target: judge(bench.root, "half", arms, target=target).comparisons[0] for target in ("lower half", "upper half")
    }
    assert said["lower half"].warnings == ("long documents",), "those that decide"
    assert all(
        f"new documents like those of the {half}-rated half of the holdout and" in said[target].sentence
        for half, target in (("worse", "lower half"), ("better", "upper half"))
    )
    assert said["upper half"].warnings == () and "long documents" not in said["upper half"].sentence


@pytest.mark.parametrize(("taken", "tied", "said"), [(400, 5_000, "40 %"), (400, 400, None), (40, 5_000, None)])
def test_documents_that_chance_drew_from_equal_scores_are_said(bench, taken, tied, said):
    facts = {"documents": 400, "cut_off_documents": tied, "cut_off_taken": taken}
    facts |= {"duplicates": 300, "empty_texts": 100, "holdout_texts_removed": 150, "near_copies_removed": 50}
    bench.root.build("arms/top16-arm/text", lambda work: work.facts.update(facts), spec={})
    (pair,) = judge(bench.root, "ties", bench.arms(seeds=2, top16=0.0, rand16=0.0)).comparisons
    sentence = "of the documents of top16, {} were drawn, once, from those with the score at its cut-off."
    assert ("with the score at its cut-off" in pair.sentence) == bool(said)
    assert said is None or sentence.format(said) in pair.sentence.replace("Of the", "of the")


def test_arms_that_read_their_text_unequally_often_say_so(bench):
    arms = {"top16": [bench.run("top16", seed, epochs=4) for seed in (1, 2, 3)]} | bench.arms(rand16=0.0)
    (pair,) = judge(bench.root, "often", arms).comparisons
    assert "Their text was read unequally often: top16 4 times, rand16 once." in pair.sentence


def test_a_holdout_of_few_blocks_falls_back_to_documents_and_says_so(bench):
    bench.cluster = np.arange(600) // 200
    verdict = judge(bench.root, "few", bench.arms(seeds=2, top16=0.0, rand16=0.0))
    held = {"documents": 600, "bytes": int(bench.bytes.sum()), "clusters": 600, "clusters_are": "single documents"}
    assert verdict.holdout == HoldoutSize(**held)


@pytest.mark.parametrize("target", ["all", "lower half"])
def test_a_holdout_from_elsewhere_is_not_called_documents_of_the_pool(bench, target):
    pool = Pool(holdout="az://raw/exam")
    arms = {arm: [bench.run(arm, seed, pool=pool) for seed in (1, 2)] for arm in ("top16", "rand16")}
    verdict = judge(bench.root, "x", arms, target=target)
    said = verdict.comparisons[0].sentence
    assert verdict.holdout.from_outside and "data.holdout" in said and "from outside the pool, decide" in said
    assert "of the pool" not in said and looks.said(verdict).comparisons[0].sentence == said


def test_outside_texts_are_compared_beside_the_holdout(bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    for seed in (1, 2):
        bench.run("top16", seed, 0.2, name="outside/wiki")
        bench.run("rand16", seed, 0.0, name="outside/wiki")
    (pair,) = judge(bench.root, "outside", arms, outside=["wiki"]).comparisons
    assert pair.better == "top16"
    (row,) = pair.outside
    assert row.label == "wiki" and row.low > 0.1


def test_texts_from_elsewhere_decide_where_they_are_the_target(bench):
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    for seed in (1, 2, 3):
        bench.run("top16", seed, 0.2, name="outside/wiki-0123456789")
        bench.run("rand16", seed, 0.0, name="outside/wiki-0123456789")
    verdict = judge(bench.root, "x", arms, outside=["wiki-0123456789"], target="outside/wiki")
    (pair,) = verdict.comparisons
    assert verdict.target == pair.target == "outside/wiki-0123456789"
    assert pair.better == "rand16" and pair.low > 0.1
    assert (pair.difference, pair.low, pair.p) == (pair.outside[0].difference, pair.outside[0].low, pair.outside[0].p)
    assert pair.tokens_saved.estimate is None, "runs are scored on these texts at their end alone"
    assert "on the texts wiki-0123456789. The texts wiki-0123456789, from outside the pool, decide" in pair.sentence
    on_holdout = judge(bench.root, "x", arms, outside=["wiki-0123456789"]).comparisons[0]
    assert on_holdout.better == "top16" and on_holdout.strata == pair.strata
    assert "Documents of the pool decide, which favors the arm that resembles the pool." in on_holdout.sentence
    with pytest.raises(InputError, match="target is 'outside/books', but the texts from elsewhere are wiki-0123456789"):
        judge(bench.root, "x", arms, outside=["wiki-0123456789"], target="outside/books")


def test_bands_of_strata_hold_together_and_are_wider_the_more_arms_there_are(bench):
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    (pair,) = judge(bench.root, "two", arms).comparisons
    more = judge(bench.root, "three", arms | bench.arms(seeds=3, bottom16=0.05)).comparisons[0]
    rows = [each for each in zip(pair.strata, more.strata, strict=True) if each[0].low is not None]
    assert len(rows) > 15
    for row, again in rows:
        assert again.band_low < row.band_low < row.low < row.high < row.band_high < again.band_high
        assert (row.low, row.high) == (again.low, again.high)
        assert row.stands_out == (row.band_high < 0)


def test_more_seeds_are_not_promised_to_help_where_the_documents_are_too_few(bench):
    bench.cluster = np.arange(600) // 60
    noisy = np.random.default_rng(2).normal(0, 0.1, 10)[bench.cluster]
    arms = {"top16": [bench.run("top16", seed) for seed in (1, 2, 3)]}
    bench.base = bench.base + noisy
    arms["rand16"] = [bench.run("rand16", seed, -float(noisy @ bench.bytes / bench.bytes.sum())) for seed in (1, 2, 3)]
    (pair,) = judge(bench.root, "few", arms).comparisons
    assert pair.errors.documents > 10 * pair.errors.seeds and pair.seeds_needed is None
    assert "More seeds would hardly help" in pair.sentence and "score on more documents" in pair.sentence
    low, high = pair.low - pair.difference, pair.high - pair.difference
    assert pair.detectable[-1].difference > high > low, "ten blocks leave t with nine degrees of freedom"


@pytest.mark.parametrize(
    ("numbers", "sign", "shown"),
    [
        ((0.024, 0.0008, 0.0504), "-", "0.0240 (0.0008 to 0.0504)"),
        ((-0.0046, -0.0123, 0.0031), "+", "−0.00460 (−0.01230 to +0.00310)"),
        ((1.5, 1.2, 1.9), "-", "1.500 (1.200 to 1.900)"),
        ((0.2, None, None), "-", "0.2000"),
        ((-0.0000213, None, None), "+", "−0.000021"),
        ((0.0, None, None), "+", "+0.0000"),
    ],
)
def test_an_interval_stands_with_its_own_ends(numbers, sign, shown):
    assert with_interval(*numbers, sign) == shown


def test_the_sentence_prints_the_interval_that_the_verdict_holds(bench):
    (pair,) = judge(bench.root, "x", bench.arms(seeds=3, top16=-0.05, rand16=0.0)).comparisons
    shown = re.search(r"by ([\d.]+) \(([\d.]+) to ([\d.]+)\) bits per byte", pair.sentence)
    expected = (-pair.difference, -pair.high, -pair.low)
    assert [float(number) for number in shown.groups()] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("share", "said"), [(0.995, False), (0.35, True)])
def test_unequal_parts_of_the_text_are_said_for_each_arm(bench, share, said):
    read = {"trained_documents": 90, "text_share": 0.999, "mean_score": 4.0, "arm_mean_score": 4.1}
    arms = {
        "top16": [bench.run("top16", seed, facts=read) for seed in (1, 2)],
        "rand16": [bench.run("rand16", seed, facts=read | {"text_share": share}) for seed in (1, 2)],
    }
    verdict = judge(bench.root, "x", arms)
    assert [arm.text_share for arm in verdict.arms] == pytest.approx([0.999, share])
    assert (verdict.arms[0].trained_documents, verdict.arms[0].mean_score, verdict.arms[0].arm_mean_score) == (
        90,
        4.0,
        4.1,
    )
    told = "Unequal parts of their text were trained on: 99.9 % of that of top16 and 35.0 % of that of rand16."
    assert (told in verdict.comparisons[0].sentence) == said


def test_the_sentence_names_the_winner_whichever_side_it_is_on(bench):
    arms = bench.arms(seeds=3, top16=-0.05, rand16=0.0)
    turned = {"rand16": arms["rand16"], "top16": arms["top16"]}
    (pair,) = judge(bench.root, "turned", turned).comparisons
    assert pair.better == "top16" and pair.low > 0
    assert pair.sentence.startswith("top16 is better than rand16")
