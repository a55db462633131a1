"""A judgement by hand counts as a look, under whatever name, and says what it does otherwise than was registered."""

from itertools import product

import pytest

from tasks.records import registration
from tasks.records.layout import PoolFolder
from tasks.records.scores import write_strata
from tasks.records.stopping import StoppingRule
from tasks.spec import Texts
from tasks.verdict import by_hand, looks
from tasks.verdict.judge import judge
from tests.planted import POOL, look, plan_of


def by_hand_of(bench, name="v", seeds=3, target="all", labels=("top16", "rand16")):
    arms = bench.arms(seeds=seeds, top16=0.0, rand16=0.0)
    given = {label: arms[arm] for label, arm in zip(labels, arms, strict=True)}
    return by_hand.take(bench.root, judge(bench.root, name, given, target=target))


def test_replicates_added_by_hand_after_a_look_are_counted_whatever_the_verdict_is_called(bench):
    look(bench, plan_of(bench, 3))
    assert len(by_hand_of(bench).registered.looks) == 1, "the same look"
    verdict = by_hand_of(bench, "other", seeds=5, labels=("best", "random"))
    assert [each.replicates for each in verdict.registered.looks] == [3, 5]
    ((_, what),) = verdict.registered.changes
    assert what == {"replicates": "3, now 5"}
    assert 0.06 < looks.error_over_looks(verdict.registered) < 0.1
    assert "Replicates, rules or targets were added after a look: over all 2 looks" in verdict.sentences[0]
    assert not registration.read(bench.root, "other").plans


def test_another_target_or_no_margin_is_shown_as_a_change(bench):
    rule = StoppingRule(margin=0.02, max_replicates=4, first_look=3)
    look(bench, plan_of(bench, 3, stop=rule))
    verdict = by_hand_of(bench, target="upper half")
    ((changed, what),) = verdict.registered.changes
    assert changed.looks_before == 1 and what["target"] == "all, now upper half"
    assert what["stop"].startswith("margin 0.02, ") and what["stop"].endswith(", now nothing")
    assert "targets were added after a look" in verdict.sentences[0]


def test_runs_that_nobody_registered_are_registered_when_they_are_judged(bench):
    first = by_hand_of(bench)
    assert first.registered.plan.runs_before == 6 and "after a look" not in first.sentences[0]
    more = by_hand_of(bench, seeds=5)
    assert [each.replicates for each in more.registered.looks] == [3, 5]
    assert looks.error_over_looks(more.registered) > 0.06


def test_replicates_that_were_registered_and_are_not_judged_are_named(bench):
    plan = plan_of(bench, 6)
    looks.register(bench.root, plan)
    bench.arms(seeds=6, top16=0.0, rand16=0.0)
    chosen = {label: [runs[0], runs[2], runs[5]] for label, runs in plan.runs_by_arm.items()}
    said = "Of 6 replicates an arm that were registered, 3 are judged: had they been chosen by their scores"
    assert said in by_hand.take(bench.root, judge(bench.root, "v", chosen)).sentences[0]
    fewer = {**plan.runs_by_arm, "top16": plan.runs_by_arm["top16"][:5]}
    assert "registered, 5 are judged" in by_hand.take(bench.root, judge(bench.root, "v", fewer)).sentences[0]
    whole = by_hand.take(bench.root, judge(bench.root, "v", plan.runs_by_arm))
    assert "are judged" not in whole.sentences[0]


def test_a_rule_that_stopped_early_leaves_no_replicates_out(bench):
    look(bench, plan_of(bench, 3, stop=StoppingRule(max_replicates=6, first_look=3)), -0.2)
    arms = plan_of(bench, 3).runs_by_arm
    assert "are judged" not in by_hand.take(bench.root, judge(bench.root, "v", arms)).sentences[0]


def test_halves_by_another_score_and_another_pairing_are_other_looks(bench):
    arms = bench.arms(top16=0.0, rand16=0.0)
    by_hand.take(bench.root, judge(bench.root, "v", arms, target="upper half"))
    unpaired = by_hand.take(bench.root, judge(bench.root, "v", arms, target="upper half", pairing="none"))
    assert looks.error_over_looks(unpaired.registered) == pytest.approx(0.1)
    other = {"fluency": 1.0}
    bench.root.build(
        PoolFolder(POOL).strata(other), lambda work: write_strata(work, -bench.score), spec={"score": other}
    )
    turned = by_hand.take(bench.root, judge(bench.root, "v", arms, target="upper half", strata_by=other))
    assert len(turned.registered.looks) == 3 and looks.error_over_looks(turned.registered) == pytest.approx(0.15)


@pytest.mark.parametrize("target", ["outside/papers", "outside/papers-0123456789"])
def test_texts_that_decided_are_the_same_target_by_their_short_name(bench, target):
    name = "papers-0123456789"
    for arm, seed in product(("top16", "rand16"), (1, 2, 3)):
        bench.run(arm, seed, name=f"outside/{name}")
    arms = bench.arms(top16=0.0, rand16=0.0)
    texts = [Texts(name="papers", url="file:///papers")]
    plan = plan_of(bench, 3, target=target, texts=texts)
    looks.register(bench.root, plan)
    verdict = judge(bench.root, "v", arms, outside=[name], target=target)
    looks.take(bench.root, plan, verdict)
    again = by_hand.take(bench.root, verdict)
    assert not again.registered.changes and len(again.registered.looks) == 1
    assert looks.error_over_looks(again.registered) == pytest.approx(0.05)
