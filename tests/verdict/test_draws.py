"""Labels that hold several draws of a random arm: what counts once, what the spread is made of, what the verdict says."""

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.reports.report import verdict_report
from tasks.verdict.draws import nested, parts, replicates
from tasks.verdict.judge import judge


def test_a_draw_counts_once_with_the_mean_of_its_runs():
    values = np.array([[1.0], [3.0], [10.0]])
    assert replicates(values, ["a", "a", "b"]).tolist() == [[2.0], [10.0]]
    assert replicates(values, ["a", "a", "a"]).tolist() == values.tolist()
    assert [nested(draws) for draws in (["a", "a"], ["a", "b"], ["a", "a", "b"])] == [False, False, True]


def test_the_parts_of_a_planted_spread_are_found():
    random = np.random.default_rng(0)
    runs = np.repeat(np.arange(400), 3)
    scores = 2.0 * random.normal(size=400)[runs] + 0.5 * random.normal(size=1_200)
    found = parts(scores, [str(run) for run in runs])
    assert found.between == pytest.approx(2.0, rel=0.1) and found.within == pytest.approx(0.5, rel=0.1)
    assert parts(scores[:3], ["a", "b", "c"]) is None and parts(scores[:3], ["a", "a", "a"]) is None


def drawn(bench, label, draws, runs=1, spread=0.02):
    """Runs of a random arm, `runs` on each draw, whose draws scatter by `spread`."""
    moves = spread * np.random.default_rng([*label.encode()]).normal(size=draws)
    seeds = iter(range(1, draws * runs + 1))
    return [
        bench.run(label, next(seeds), moves[draw], spread=0.0005, draw=100 + draw)
        for draw in range(draws)
        for _ in range(runs)
    ]


def test_a_label_holds_a_draw_for_each_replicate_and_the_sentence_says_so(bench):
    arms = {"top16": [bench.run("top16", seed) for seed in (1, 2, 3, 4)], "rand16": drawn(bench, "rand16", 4)}
    verdict = judge(bench.root, "drawn", arms)
    (pair,) = verdict.comparisons
    top, rand = verdict.arms
    assert top.draws == () and len(set(rand.draws)) == 4
    assert "init" in rand.redrawn and "sample" in rand.redrawn and "sample" not in top.redrawn
    assert "The interval is for new draws of rand16 too." in pair.sentence
    one = judge(bench.root, "one", bench.arms(seeds=3, top8=0.0, rand8=0.0)).comparisons[0]
    assert "The interval is not for other draws of rand8: the runs are all on one." in one.sentence


def test_the_report_says_of_random_arms_whether_documents_or_rows_of_a_budget_are_redrawn(bench):
    arms = {"rand8": [bench.run("rand8", seed, facts={"rows_left": 7}) for seed in (1, 2)]}
    arms["rand9"] = [bench.run("rand9", seed, draw=seed) for seed in (1, 2)]
    verdict = judge(bench.root, "redrawn", arms)
    cells = verdict_report(bench.root, verdict).split('data-head="Redrawn for each run">')[1:]
    assert [cell.partition("</td>")[0] for cell in cells] == [
        "initial weights; rows of a budget",
        "initial weights; order of a shuffled arm; documents of a random arm",
    ]


def test_runs_on_one_draw_are_no_replicates_of_the_selection(bench):
    """Three runs on each of three draws are three replicates, and the spread is told apart."""
    arms = {"top16": [bench.run("top16", seed) for seed in range(1, 10)], "rand16": drawn(bench, "rand16", 3, runs=3)}
    verdict = judge(bench.root, "nested", arms)
    (pair,) = verdict.comparisons
    assert pair.seeds == 3 and not pair.pairing.paired and pair.pairing.other is None
    assert pair.errors.seeds > 0.003
    rand = verdict.arms[1]
    assert rand.deviation_between_draws > 5 * rand.deviation_within_draws
    with pytest.raises(InputError, match="runs of top16 or rand16 share a draw"):
        judge(bench.root, "nested", arms, pairing="seed")


def test_draws_of_one_selection_are_a_control_and_other_arms_under_one_label_are_refused(bench):
    arms = {"rand8": [bench.run("rand8", seed, draw=seed) for seed in (1, 3, 5)]}
    arms["rand9"] = [bench.run("rand9", seed, draw=seed) for seed in (2, 4, 6)]
    assert judge(bench.root, "aa", arms, control="aa").control == "aa"
    mixed = {"top16": [bench.run("top16", 1), bench.run("top16", 2, draw=7)], "rand8": arms["rand8"]}
    with pytest.raises(InputError, match="runs of top16 were trained on different arms"):
        judge(bench.root, "mixed", mixed)
