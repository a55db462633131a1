"""A ladder from its form to what it predicts, on planted runs; and what it would have said of a ledger's larger scales."""

import pytest

from tasks.errors import InputError
from tasks.records.ladder import CALIBRATED, Ladder
from tasks.records.layout import LADDER, REPORT
from tasks.records.ledger import Attempt, LedgerEntry
from tasks.reports.ladder import ladder_markdown, ladder_report, write_ladder
from tasks.spec import Training
from tasks.verdict.backtest import backtest
from tasks.verdict.judge import judge
from tasks.verdict.rungs import LadderForm, conclude
from tests.planted import POOL, TRAINING, Bench

FORM = {"name": "steps", "replicates": 4, "train": {"tokens_per_parameter": 10.5}}


def test_each_depth_is_a_comparison_with_its_own_name_on_as_many_tokens_a_parameter():
    spec = LadderForm(**FORM).ladder()
    rungs = spec.rungs()
    assert [each.name for each in rungs.values()] == [f"steps-d{depth}" for depth in (4, 6, 8, 10, 12)]
    assert {each.training.tokens_per_parameter for each in rungs.values()} == {10.5}
    assert {each.training.recipe for each in rungs.values()} == {"quiet"}
    assert [spec.scale(depth).tokens for depth in (4, 20)] == [121_111_032, 4_569_182_520]


@pytest.mark.parametrize(
    ("train", "ratio"),
    [({"depth": 6, "tokens": 23_199_744 * 2}, 2.0), ({}, 10.5), ({"tokens_per_parameter": 3}, 3.0)],
)
def test_tokens_at_a_depth_say_the_ratio_at_all_of_them(train, ratio):
    assert LadderForm(**{**FORM, "train": train}).ladder().ratio == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depths": [4, 6, 20]}, "all below the target"),
        ({"depths": [4, 4, 6]}, "each depth once"),
        ({"replicates": None, "stop": {}}, "give replicates instead of stop"),
        ({"replicates": 1}, "1 replicate an arm"),
        ({"name": "n" * 41}, "at most 37 characters"),
    ],
)
def test_what_is_no_ladder_is_refused_with_the_remedy(given, words):
    with pytest.raises(InputError, match=words):
        LadderForm(**{**FORM, **given}).ladder()


def test_a_ladder_that_costs_too_much_is_refused_before_anything_is_spent():
    spec = LadderForm(**FORM).ladder()
    cost = spec.cost()
    assert cost.share < 0.2 and cost.hours and cost.dollars
    assert cost.flops / cost.target_flops == pytest.approx(0.10, abs=0.01)
    spec.require_affordable(cost)
    near = LadderForm(**{**FORM, "to": 10, "depths": [4, 6, 8]}).ladder()
    with pytest.raises(InputError, match=r"more than most, 0\.2: leave out the deepest"):
        near.require_affordable(near.cost())


DEPTHS = (4, 6, 8, 10)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The rungs of a ladder of planted runs, in which the first arm loses its lead of 0.02 by 0.004 a depth."""
    bench = Bench(tmp_path_factory.mktemp("rungs"))
    form = LadderForm(
        **{**FORM, "to": 12, "depths": list(DEPTHS), "arms": [{"name": "top"}, {"name": "rand", "select": "random"}]},
        most=1,
    )
    spec, judged = form.ladder(), {}
    for place, depth in enumerate(DEPTHS):
        training = TRAINING.model_copy(update={"depth": depth, "tokens": spec.scale(depth).tokens})
        runs = {
            arm: [bench.run(arm, seed, offset, training=training) for seed in (1, 2, 3, 4)]
            for arm, offset in (("top", -0.02 + 0.004 * place), ("rand", 0.0))
        }
        judged[depth] = (f"verdicts/steps-d{depth}", judge(bench.root, f"steps-d{depth}", runs))
    return bench, spec, judged


@pytest.fixture(scope="module")
def climbed(judged):
    bench, spec, verdicts = judged
    return bench, conclude(spec, verdicts, spec.cost(), backtest([]))


def test_documents_of_unknown_error_predict_nothing(judged):
    _, spec, verdicts = judged
    name, verdict = verdicts[6]
    (pair,) = verdict.comparisons
    unknown = pair.model_copy(update={"clusters": 5, "errors": pair.errors.model_copy(update={"documents": None})})
    few = {**verdicts, 6: (name, verdict.model_copy(update={"comparisons": (unknown,)}))}
    with pytest.raises(InputError, match="At d6 5 blocks of documents decide, too few"):
        conclude(spec, few, spec.cost(), backtest([]))


def test_the_prediction_follows_the_rungs_and_says_what_it_covers(climbed):
    _, ladder = climbed
    (found,) = ladder.forecasts
    assert [rung.depth for rung in found.rungs] == list(DEPTHS)
    assert found.rungs[0].difference < found.rungs[-1].difference < 0
    assert found.low < found.difference < found.high and found.rungs[0].difference < found.difference
    assert "from d4, d6, d8, d10" in found.sentence and "90 % interval" in found.sentence
    assert "not for another pool, recipe or ratio" in found.sentence
    assert ladder.sentences == [found.sentence, ladder.backtest.sentence]
    assert ladder.backtest.sentence.startswith(f"Not calibrated: 0 of the {CALIBRATED} pairs")


def test_what_all_pairs_of_a_ladder_share_is_said_once(climbed):
    _, ladder = climbed
    (found,) = ladder.forecasts
    other = found.model_copy(update={"b": "all", "sentence": found.sentence.replace("rand", "all")})
    several = ladder.model_copy(update={"forecasts": (found, other)})
    assert len(several.sentences) == 4 and several.sentences[2].startswith("Of all pairs: The prediction is extrap")
    for text in (" ".join(several.sentences), ladder_report(several), ladder_markdown(several)):
        assert text.count("extrapolated from d4, d6, d8, d10") == text.count("not for another pool, recipe") == 1


def test_the_artifact_holds_the_record_and_a_page_with_a_picture(climbed):
    bench, ladder = climbed
    bare = ladder.model_copy(
        update={"scales": tuple(scale.model_copy(update={"verdict": None}) for scale in ladder.scales)}
    )
    made = write_ladder(bench.root, bare)
    assert Ladder.read(made.path / LADDER) == bare
    page = (made.path / REPORT).read_text()
    assert (
        page.count("<svg") == 1 and "mathdefault" not in page and "d12, predicted" in page and "Not calibrated" in page
    )
    text = ladder_markdown(ladder)
    assert "data:image/svg+xml" in text and "| d12, predicted |" in text
    assert write_ladder(bench.root, bare).name == made.name


def entry(bench, arm, seed, bpb, training):
    """Of a finished run."""
    experiment = bench.experiment(arm, seed, training)
    attempt = Attempt(
        started=1.0, finished=2.0, state="completed", host="here", pid=1, gpus=1, dollars_per_gpu_hour=3.0, code="0"
    )
    return LedgerEntry(
        run=f"{arm}-d{training.depth}-s{seed}",
        arm=arm,
        arm_id=f"{arm}-arm",
        pool_id=POOL,
        seed=seed,
        depth=training.depth,
        engine="builtin",
        precision="fp32",
        experiment=experiment,
        attempts=(attempt,),
        state="completed",
        bpb=bpb,
        tokens=training.tokens,
    )


def entries(bench, lead):
    """Ledger entries of arms at depths 4 to 12, with this lead at each, in equal tokens a parameter."""
    spec = LadderForm(**FORM).ladder()
    found = []
    for place, depth in enumerate((4, 6, 8, 12)):
        tokens = spec.scale(depth).tokens
        training = Training(depth=depth, tokens=tokens, device="cpu", precision="fp32")
        for arm, offset in (("top", -lead(place)), ("rand", 0.0)):
            for seed in (1, 2, 3):
                found.append(
                    entry(
                        bench,
                        arm,
                        seed,
                        1.5 - 0.1 * place + offset + 0.0005 * ((seed * (place + 2 + len(arm))) % 4),
                        training,
                    )
                )
    return found


def test_the_largest_scale_of_a_ledger_is_predicted_from_the_smaller_ones_once_a_recipe(bench):
    tested = backtest(entries(bench, lambda place: 0.02 - 0.003 * place))
    (trial,) = tested.trials
    assert {trial.a, trial.b} == {"top", "rand"} and trial.depths == (4, 6, 8, 12)
    assert trial.covered and not tested.calibrated
    assert "1 of the 10 pairs" in tested.sentence and "1 of 1 intervals at 90 % held what was found" in tested.sentence
    again = [
        each.model_copy(
            update={
                "experiment": each.experiment.model_copy(
                    update={"training": each.experiment.training.model_copy(update={"recipe": "quiet"})}
                )
            }
        )
        for each in entries(bench, lambda place: 0.02)
    ]
    assert len(backtest([*entries(bench, lambda place: 0.02), *again]).trials) == 2, "other runs of the same arms"
    broken = backtest(entries(bench, lambda place: 0.02 - 0.003 * place + 2.0 * (place == 3)))
    assert not broken.trials[0].covered


def test_scales_with_too_few_replicates_or_other_ratios_make_no_trial(bench):
    known = entries(bench, lambda place: 0.02)
    assert not backtest([entry for entry in known if entry.depth != 6 or entry.seed == 1]).trials
    other = [
        entry.experiment.training.model_copy(update={"tokens": 2 * entry.experiment.training.tokens}) for entry in known
    ]
    mixed = [
        entry.model_copy(update={"experiment": entry.experiment.model_copy(update={"training": training})})
        if entry.depth == 8
        else entry
        for entry, training in zip(known, other, strict=True)
    ]
    assert not backtest(mixed).trials
