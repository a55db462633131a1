import numpy as np
import pytest

from tasks.errors import InputError
from tasks.verdict.savings import curve_of, shortened, tokens_saved
from tasks.verdict.shortened import check_savings
from tests.planted import look, plan_of

TOKENS = np.array([0.0, 1e6, 2e6, 4e6, 8e6])
RUNS = np.array([-0.002, 0.0, 0.002])
"""What seeds do to where runs end."""


def log_curve(end=1.0, slope=0.1):
    """Falls by `slope` a unit of ln(tokens)."""
    with np.errstate(divide="ignore"):
        values = end - slope * (np.log(TOKENS) - np.log(8e6))
    return TOKENS, np.where(TOKENS > 0, values, 9.0)


def saved(difference, runs=RUNS, **options):
    """Of arms whose better one ends at 1 and is lower by `difference`."""
    options = {"paired": False} | options
    return tokens_saved([log_curve(1 + run) for run in runs], 1 + runs, 1 + difference + runs, **options)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_logarithmic_curve_gives_the_share_exactly(share):
    assert saved(-0.1 * np.log(1 - share)).estimate == pytest.approx(share)


def test_the_interval_is_welchs_read_off_the_curve():
    found = saved(0.05)
    reach = 2.776 * np.sqrt(2 / 3) * 0.002  # t with 4 degrees of freedom
    assert (found.low, found.high) == pytest.approx(
        [1 - np.exp(-(0.05 + end) / 0.1) for end in (-reach, reach)], abs=1e-4
    )


def test_runs_that_seeds_move_alike_leave_no_doubt_where_they_are_paired():
    found = saved(0.05, paired=True)
    assert found.low == pytest.approx(found.estimate) == pytest.approx(found.high)


def test_the_error_of_the_documents_widens_the_interval():
    found = saved(0.05, paired=True, documents=0.01, clusters=1_000)
    assert found.low == pytest.approx(1 - np.exp(-(0.05 - 1.96 * 0.01) / 0.1), abs=1e-3)
    assert saved(0.05, paired=True, documents=0.01, clusters=5).low < found.low


def test_replicates_that_scatter_before_the_end_widen_it_too():
    curves = [log_curve(), log_curve(slope=0.09), log_curve(slope=0.11)]
    ends, other = np.ones(3), np.full(3, 1.05)
    found = tokens_saved(curves, ends, other, paired=False)
    assert found.estimate == pytest.approx(1 - np.exp(-0.5), abs=0.01) and found.high - found.low > 0.05


def test_no_difference_saves_nothing():
    assert saved(0.0).estimate == pytest.approx(0.0)
    assert saved(0.001).low == 0.0


def test_more_than_the_curve_covers_is_not_guessed():
    assert saved(0.5).estimate is None
    assert saved(0.205).estimate < 1 and saved(0.2075, documents=0.01).high is None
    for curve in ((TOKENS[:1], np.array([1.0])), (np.array([]), np.array([]))):
        assert tokens_saved([curve], np.ones(1), np.ones(1), paired=False).estimate is None


def test_one_run_has_an_estimate_without_an_interval():
    found = saved(0.05, runs=np.zeros(1))
    assert found.estimate == pytest.approx(1 - np.exp(-0.5)) and found.low is found.high is None


def test_only_tokens_that_all_replicates_share_count_and_curves_end_at_the_score():
    lines = [{"kind": "eval", "tokens": t, "bpb": b} for t, b in ((10, 3.0), (15, 7.0), (20, 2.0))]
    lines.append({"kind": "train", "tokens": 18})
    curves = [curve_of(lines), (np.array([10.0, 20.0, 30.0]), np.array([3.0, 2.0, 1.0]))]
    found = tokens_saved(curves, np.full(2, 5.0), np.full(2, 5.5), paired=False)
    assert found.estimate == pytest.approx(1 - np.sqrt(10 * 20) / 20)


def test_a_decile_without_documents_leaves_the_curve_of_its_half_as_it_is():
    lines = [{"kind": "eval", "tokens": 10, "bpb": 1.0, "bpb_by_decile": [None, 2.0, 4.0]}]
    tokens, values = curve_of(lines, np.array([0, 1, 3]), slice(0, 3))
    assert (tokens.tolist(), values.tolist()) == ([10.0], [3.5])


def test_the_curve_of_some_deciles_weighs_them_by_bytes():
    by_decile = [float(i) for i in range(10)]
    lines = [{"kind": "eval", "tokens": 10, "bpb": 9.0, "bpb_by_decile": by_decile}]
    sizes = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 6])
    assert curve_of(lines)[1].tolist() == [9.0]
    assert curve_of(lines, sizes, slice(5, 10))[1].tolist() == [pytest.approx((5 + 6 + 7 + 8 + 6 * 9) / 10)]


@pytest.mark.parametrize(("share", "tokens"), [(0.1, 900), (0.15, 900), (0.2, 800), (0.999, 100)])
def test_a_shortened_budget_is_whole_batches_and_saves_no_more_than_was_said(share, tokens):
    assert shortened(share, 1_000, 100) == tokens


@pytest.mark.parametrize(
    ("offset", "conclusion", "words"),
    [
        (-0.03, "confirmed", "end 0.0"),
        (0.03, "refuted", "end 0.0"),
        (0.0, "open", "are not told apart from those of rand16: the difference is "),
    ],
)
def test_runs_that_stop_early_confirm_the_savings_or_refute_them(bench, offset, conclusion, words):
    plan = plan_of(bench, 3)
    verdict = look(bench, plan, -0.05)
    (pair,) = verdict.comparisons
    assert "not checked by shorter runs" in pair.sentence and pair.tokens_saved.checked is None
    shorter = plan.shortened(pair)
    assert [(run.experiment.arm.name, run.tokens) for run in shorter.runs] == [("top16", 925_000)] * 3
    assert {run.experiment.seed for run in shorter.runs} == {1, 2, 3} and shorter.missing(bench.root) == [*shorter.runs]
    level = float(np.mean(verdict.arms[1].bpb - bench.base @ bench.bytes / bench.bytes.sum()))
    noise = 0.003 * np.random.default_rng([*b"top16"]).normal(size=600)  # the arm's own, as planted
    found = offset + level - float(noise @ bench.bytes / bench.bytes.sum())
    facts = {"tokens": 925_000, "steps": 37}
    short = [
        bench.run("top16", seed, found, training=shorter.runs[0].experiment.training, facts=facts) for seed in (1, 2, 3)
    ]
    assert short == [run.id for run in shorter.runs]
    (checked,) = check_savings(bench.root, verdict, pair, short).comparisons
    assert checked.tokens_saved.checked.conclusion == conclusion
    assert checked.tokens_saved.checked.saved == pytest.approx(0.075)
    assert (
        f"{conclusion if conclusion != 'open' else 'nor refuted'} by shorter runs). Runs of top16 on 7.5 % fewer tokens {words}"
        in checked.sentence
    )
    said = {"confirmed": "below those of rand16: the savings", "refuted": "above those of rand16: the savings"}
    assert said.get(conclusion, "settles nothing") in checked.sentence
    with pytest.raises(InputError, match="trained on 1,000,000 tokens, but the savings are checked on 925,000"):
        check_savings(bench.root, verdict, pair, list(verdict.arms[0].runs))


def test_where_nothing_is_saved_there_is_nothing_to_check(bench):
    plan = plan_of(bench, 2)
    verdict = look(bench, plan, spread=0.01)
    assert plan.shortened(verdict.comparisons[0]).runs == ()
    with pytest.raises(InputError, match="saves no tokens between top16 and rand16"):
        check_savings(bench.root, verdict, verdict.comparisons[0], [])
