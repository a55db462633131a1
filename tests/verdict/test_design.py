"""Which settings can show an effect, and which of them is proposed."""

import pytest

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.cost import estimate_cost
from tasks.spec import Arm, Experiment, Training
from tasks.store.root import Root
from tasks.verdict.design import MEASURED, known_spreads, propose, say
from tasks.verdict.planning import smallest_difference


def test_the_largest_model_that_shows_the_effect_for_the_money_is_proposed_with_the_fewest_replicates():
    best, *others = propose(0.003, 100)
    assert (best.depth, best.recipe, best.tokens, best.reaches) == (12, "quiet", 20_054_016, True)
    assert best.shows <= 0.003 < smallest_difference(best.deviation**2, best.replicates - 1, 2)
    assert best.replicates == best.needed and best.cost.dollars == pytest.approx(best.needed_dollars)
    assert {each.depth for each in others} == {6, 8}
    text = say(best, 0.003, 100)
    assert text.startswith(f"Train 2 arms x {best.replicates} replicates at depth 12 (quiet) on 20,054,016 tokens for ")
    assert "3 degrees of freedom" in text


def test_money_limits_the_replicates():
    cost = estimate_cost(MEASURED[2].training, 20_054_016, runs=2).dollars
    closest = propose(0.001, 5.5 * cost)[0]
    assert closest.replicates == 5 and not closest.reaches and closest.cost.dollars <= 5.5 * cost
    text = say(closest, 0.001, 5.5 * cost)
    assert text.startswith("No known setting shows 0.001 for") and f"take {closest.needed:,} replicates an arm" in text
    assert propose(0.001, cost / 10)[0].shows is None, "not even two replicates are paid for"


def test_more_arms_need_more_replicates_of_each():
    assert propose(0.003, 100, arms=4)[0].replicates > propose(0.003, 100)[0].replicates


def test_own_runs_count_before_the_table(tmp_path):
    root = Root(tmp_path)
    training = Training(depth=4, sequence_length=256, tokens=1_000_000, precision="fp32", device="cpu")
    for seed, bpb in ((1, 1.0), (2, 1.002)):
        run = ledger.open_entry(root, Experiment(arm=Arm(name="a"), training=training, seed=seed), "pool", "a-1").run
        facts = {"bpb": bpb, "tokens": 1_000_000, "tokens_per_second": 1e4, "device": "cpu"}
        ledger.finish(root, run, "completed", facts=facts)
    (known,) = known_spreads(ledger.entries(root))
    assert known.variance == pytest.approx(2e-6) and known.freedom == 1 and known.training.depth == 4
    (only,) = propose(0.01, 1, ledger.entries(root), device="cpu")
    assert (only.depth, only.cost.dollars, only.reaches) == (4, 0.0, True)
    assert known_spreads([]) == list(MEASURED)
    assert propose(0.01, 100, ledger.entries(root))[0].depth == 12, "runs on a CPU say nothing of a GPU"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 100), "The effect is 0: give a number above 0"),
        ((0.01, -1), "The budget in dollars is -1"),
        ((float("nan"), 100), "The effect is nan"),
        ((0.01, float("inf")), "The budget in dollars is inf"),
    ],
)
def test_what_is_no_question_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        propose(*arguments)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(InputError, match=f"price of a GPU hour is {price:g}"):
        propose(0.01, 100, dollars_per_gpu_hour=price)


def test_a_device_that_nothing_was_measured_on_is_refused():
    with pytest.raises(InputError, match="No run on 'abacus' was measured"):
        propose(0.01, 100, device="abacus")
