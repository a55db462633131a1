import pytest

from tasks.errors import InputError
from tasks.records import ledger
from tasks.spec import Arm, Experiment, Training
from tasks.store.root import Root
from tasks.verdict.planning import equal_budget, spread_between_seeds, what_seeds_show, what_steps_are_few

PACKED = {
    "top16": {"tokens_per_epoch": 80_000, "tokens": 100_000, "bytes": 500_000, "sequence_length": 256},
    "rand16": {"tokens_per_epoch": 96_000, "tokens": 120_000, "bytes": 480_000, "sequence_length": 256},
}


def test_the_budget_is_every_row_of_the_smaller_arm():
    assert equal_budget(PACKED, None) == {"top16": 80_000, "rand16": 80_000}
    assert equal_budget(PACKED, 50_000) == {"top16": 50_000, "rand16": 50_000}


def test_a_small_arm_read_several_times_is_set_against_a_large_one_at_equal_tokens():
    assert equal_budget(PACKED, None, epochs={"top16": 4}) == {"top16": 96_000, "rand16": 96_000}
    assert equal_budget(PACKED, None, epochs={"top16": 1, "rand16": 2}) == {"top16": 80_000, "rand16": 80_000}
    assert equal_budget(PACKED, 90_000, epochs={"top16": 4})["top16"] == 90_000
    tokens = equal_budget(PACKED, None, "bytes", epochs={"top16": 4})
    assert tokens == {"top16": 76_800, "rand16": 96_000}


def test_equal_bytes_are_fewer_tokens_where_tokens_are_longer():
    tokens = equal_budget(PACKED, None, "bytes")
    assert tokens == {"top16": 76_800, "rand16": 95_744 + 256}
    assert tokens["top16"] * 5 == tokens["rand16"] * 4


def test_a_budget_that_an_arm_does_not_have_is_refused():
    with pytest.raises(InputError, match="90,000 tokens, but the arm top16 has only 80,000"):
        equal_budget(PACKED, 90_000)
    with pytest.raises(InputError, match="less than one row of top16"):
        equal_budget(PACKED, 200, "bytes")


def test_what_seeds_show_is_said_only_when_it_is_known():
    assert "makes no verdict" in what_seeds_show((1e-6, 4), 2, 1)
    assert "not known yet" in what_seeds_show(None, 2, 3)
    few, many = (what_seeds_show((1e-6, 4), 2, seeds) for seeds in (2, 8))
    assert "a seed moved bits per byte by 0.001 " in few
    assert "2 seeds an arm show a difference of 0.0054" in few and "8 seeds an arm show a difference of 0.0016" in many


def test_the_spread_between_seeds_is_pooled_over_runs_alike(tmp_path):
    root = Root(tmp_path)
    bpb = {("a", 1): 1.0, ("a", 2): 1.2, ("b", 1): 2.0, ("b", 2): 2.0, ("c", 1): 9.0}
    for (arm, seed), value in bpb.items():
        run = ledger.open_entry(root, Experiment(arm=Arm(name=arm), seed=seed), "pool-1", f"{arm}-1").run
        ledger.finish(root, run, "completed", facts={"bpb": value, "tokens": 1_000})
    found = ledger.entries(root)
    assert spread_between_seeds(found, Training()) == (pytest.approx(0.01), 2)
    assert spread_between_seeds(found, Training(tokens=1_500))[1] == 2
    assert spread_between_seeds(found, Training(tokens=5_000)) is None
    assert spread_between_seeds(found, Training(depth=12)) is None
    assert spread_between_seeds(found, Training(recipe="quiet")) is None


def test_a_budget_of_few_steps_is_said_with_a_batch_that_makes_more():
    (said,) = what_steps_are_few(274_688, 2, 256)
    assert (
        said.startswith("A run has 2 steps, ") and "batch_tokens: 4,096 under train makes 67 of the same tokens" in said
    )
    assert what_steps_are_few(274_688, 40, 256) == [] and what_steps_are_few(1_024, 4, 256) == [], "no batch makes more"
