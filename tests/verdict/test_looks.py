"""Plans that are registered before the first run, looks that are counted, and what they conclude together."""

import dataclasses

import pytest

from tasks.errors import InputError
from tasks.records import ledger, registration
from tasks.records.layout import ENTRY, PoolFolder, RunFolder
from tasks.records.registration import Registration
from tasks.records.stopping import StoppingRule
from tasks.reports.report import verdict_report
from tasks.spec import DRAWS, Arm
from tasks.store.artifact import Work
from tasks.verdict import looks
from tasks.verdict.comparison import ComparisonPlan
from tasks.verdict.sequential import false_alarms
from tests.planted import POOL, TRAINING, Bench, in_rounds, look, plan_of

RULE = StoppingRule(margin=0.005, max_replicates=6, first_look=3)


def test_the_plan_lies_in_the_verdicts_folder_before_the_first_run(bench):
    registered = looks.register(bench.root, plan_of(bench, 3, target="upper half"))
    path = bench.root.path("verdicts/v/registered.json")
    kept = Registration.parse(path.read_bytes(), path, "")
    assert kept.plans == (registered.plan,) and kept.looks == ()
    plan = registered.plan
    assert (plan.target, plan.replicates, plan.redraw, plan.runs_before) == ("upper half", 3, DRAWS, 0)
    assert looks.register(bench.root, plan_of(bench, 3, target="upper half")) == registered, "said once"


def test_a_later_change_stands_beside_what_was_said_first(bench):
    look(bench, plan_of(bench, 3))
    verdict = look(bench, plan_of(bench, 3, target="upper half"))
    ((changed, what),) = verdict.registered.changes
    assert what == {"target": "all, now upper half"}
    assert (changed.runs_before, changed.looks_before) == (6, 1)
    assert verdict.registered.plan.target == "all"
    assert "targets were added after a look: over all 2 looks, up to 10 %" in verdict.sentences[0]
    assert [each.target for each in verdict.registered.looks] == ["all", "upper half"]
    assert looks.error_over_looks(verdict.registered) == pytest.approx(0.1), (
        "two questions, not one stream of replicates"
    )
    path = bench.root.path("verdicts/v/registered.json")
    assert len(Registration.parse(path.read_bytes(), path, "").plans) == 2


def test_the_same_runs_are_looked_at_once_and_added_replicates_are_another_look(bench):
    first = look(bench, plan_of(bench, 3))
    assert look(bench, plan_of(bench, 3)).registered == first.registered
    assert len(first.registered.looks) == 1 and "after a look" not in first.sentences[0]
    more = look(bench, plan_of(bench, 5))
    assert [each.replicates for each in more.registered.looks] == [3, 5]
    assert 0.06 < looks.error_over_looks(more.registered) < 0.1
    assert "Replicates, rules or targets were added after a look: over all 2 looks, up to" in more.sentences[0]


def test_more_replicates_than_the_rule_had_cost_error_and_another_margin_does_not(bench):
    rule = StoppingRule(max_replicates=4, first_look=3)
    in_rounds(bench, rule, spread=0.01)
    wider = look(bench, plan_of(bench, 4, stop=rule.model_copy(update={"margin": 0.001})), spread=0.01)
    assert "The plan was changed after a look." in wider.sentences[0] and "were added after" not in wider.sentences[0]
    assert looks.error_over_looks(wider.registered) == pytest.approx(0.05)
    more = look(bench, plan_of(bench, 6, stop=rule.model_copy(update={"max_replicates": 6})), spread=0.01)
    assert looks.error_over_looks(more.registered) > 0.06
    assert "Replicates, rules or targets were added after a look: over all 3 looks, up to" in more.sentences[0]


def test_another_question_under_the_same_name_is_counted_and_has_looks_of_its_own(bench):
    look(bench, plan_of(bench, 3))
    plan = plan_of(bench, 3)
    other = dataclasses.replace(
        plan, spec=dataclasses.replace(plan.spec, training=TRAINING.model_copy(update={"depth": 6}))
    )
    registered = looks.register(bench.root, other)
    assert registered.looks == () and registered.others == 1 and registered.later == ()


def test_looks_at_the_same_runs_under_other_names_count(bench):
    look(bench, plan_of(bench, 3))
    plan = plan_of(bench, 4)
    renamed = [dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, name=name)) for name in ("again", "copy")]
    verdict = look(bench, renamed[0])
    assert list(verdict.registered.elsewhere) == ["v"] and len(verdict.registered.looks) == 1
    assert looks.error_over_looks(verdict.registered) == pytest.approx(false_alarms((3, 4)))
    assert (
        "after a look, under other names or with other arms too (v): over all 2 looks, up to 7" in verdict.sentences[0]
    )
    page = verdict_report(bench.root, verdict)
    assert "looked at as <code>v</code>, too: 3 replicates an arm, all" in page
    same = look(bench, renamed[1])
    assert looks.error_over_looks(same.registered) == looks.error_over_looks(verdict.registered), "asked before"


def test_looks_at_one_arm_of_a_pair_are_no_looks_at_the_pair(bench):
    look(bench, plan_of(bench, 3))
    arms = plan_of(bench, 3).runs_by_arm
    (taken,) = registration.read(bench.root, "v").looks
    assert registration.elsewhere(bench.root, "other", taken.question, arms) == {"v": (taken,)}
    assert registration.elsewhere(bench.root, "v", "with an arm more", arms) == {"v": (taken,)}
    assert not registration.elsewhere(bench.root, "other", taken.question, arms | {"top16": ["another"]})
    assert not registration.elsewhere(bench.root, "v", taken.question, arms)


def test_a_difference_that_an_earlier_look_decided_is_shown_with_its_sign_and_saves_no_tokens(bench):
    rule = StoppingRule(max_replicates=6, first_look=3)
    first = in_rounds(bench, rule, -0.2)[-1]
    assert first.comparisons[0].decision == "better" and first.comparisons[0].tokens_saved.estimate is not None
    plan = plan_of(bench, 4, stop=rule)
    for arm, offset in (("top16", 5.0), ("rand16", 0.0)):
        if bench.root.find(f"runs/{plan.runs_by_arm[arm][3]}/result") is None:
            bench.run(arm, 4, offset)
    (pair,) = look(bench, plan).comparisons
    assert (pair.better, pair.lower) == ("top16", "rand16") and not pair.excludes_zero
    assert pair.sentence.startswith(
        "top16 is better than rand16 by an earlier look; now the difference, top16 minus rand16, is +1."
    )
    assert pair.tokens_saved.estimate is None


@pytest.mark.parametrize(("offset", "decision"), [(0.2, "worse"), (-0.2, "better")])
def test_a_large_difference_stops_at_an_early_look(bench, offset, decision):
    verdicts = in_rounds(bench, RULE, offset)
    assert len(verdicts) <= 2
    (pair,) = verdicts[-1].comparisons
    assert (pair.decision, pair.conclusion) == (decision, "better")
    assert pair.better == ("top16" if decision == "better" else "rand16")
    assert pair.level > 0.95 and f"Decided at look {len(verdicts)} of at most 4" in pair.sentence


def test_equal_arms_end_equivalent_within_a_wide_margin_and_undecided_without_one(make_bench, tmp_path):
    bench = make_bench()
    pair = in_rounds(bench, StoppingRule(margin=0.02, max_replicates=6))[-1].comparisons[0]
    assert (pair.decision, pair.conclusion, pair.better) == ("equivalent", "equivalent", None)
    assert pair.sentence.startswith(
        "top16 and rand16 are equivalent within 0.02 bits per byte: the difference, top16 minus rand16, is"
    )
    other = Bench(tmp_path / "other")
    verdicts = in_rounds(other, StoppingRule(max_replicates=5), spread=0.01)
    assert [verdict.comparisons[0].decision for verdict in verdicts] == ["go on", "go on", "undecided"]
    assert looks.error_over_looks(verdicts[-1].registered) == pytest.approx(0.05)
    assert "Undecided at look 3 of at most 3, with 5 of at most 5 replicates an arm." in verdicts[-1].sentences[0]
    again = in_rounds(other, StoppingRule(max_replicates=5), spread=0.01)
    assert [verdict.comparisons for verdict in again] == [verdict.comparisons for verdict in verdicts], "resumed"
    assert again[-1].registered == verdicts[-1].registered


def test_money_that_does_not_reach_for_a_round_ends_it(bench):
    def facts(work: Work) -> None:
        work.facts["tokens"] = 10_000

    bench.root.build(PoolFolder(POOL).evaluation, facts, spec={})
    gpu = TRAINING.model_copy(update={"device": "auto", "dollars_per_gpu_hour": 1_000.0})

    def planned(replicates: int, dollars: float) -> ComparisonPlan:
        rule = StoppingRule(max_replicates=6, max_dollars=dollars)
        return plan_of(bench, replicates, training=gpu, stop=rule)

    plan = planned(3, 1)
    first = plan.cost(bench.root, plan.runs)[0][-1].dollars
    with pytest.raises(InputError, match="but the first round of 6 runs would bring the cost to"):
        looks.over_budget(bench.root, planned(3, 0.9 * first), first=True)
    plan = planned(3, 1.2 * first)
    assert not looks.over_budget(bench.root, plan, first=True)
    assert look(bench, plan, spread=0.01).comparisons[0].decision == "go on"
    for run in plan.runs:
        entry = ledger.open_entry(bench.root, run.experiment, POOL, run.arm_id)
        spent = entry.model_copy(update={"dollars": first / 6, "state": "completed"})
        bench.root.path(RunFolder(run.id).file(ENTRY)).write_text(spent.to_json())
    assert looks.over_budget(bench.root, planned(4, 1.2 * first), first=False)
    assert not looks.over_budget(bench.root, planned(4, 2 * first), first=False)
    assert look(bench, plan, last=True).comparisons[0].decision == "undecided"


def test_rounds_that_draw_random_arms_need_a_budget(bench):
    empty = TRAINING.model_copy(update={"tokens": None})
    spec = dataclasses.replace(plan_of(bench, 3, stop=RULE).spec, training=empty)
    with pytest.raises(InputError, match=r"later rounds draw rand16 anew.*set train.tokens"):
        spec.require_matched()


def with_sizes(bench: Bench, replicates: int, sizes: dict[int, int]) -> ComparisonPlan:
    """A plan without a budget, whose draws of the random arm hold so many tokens, {seed: tokens}."""
    empty = TRAINING.model_copy(update={"tokens": None})
    spec = dataclasses.replace(plan_of(bench, replicates).spec, training=empty)
    for arm in (drawn for each in spec.arms for drawn in spec.draws_of(each)):
        size = sizes[arm.seed] if arm.at_random else 10_240

        def make(work: Work, arm: Arm = arm, size: int = size) -> None:
            work.temporary("rows.bin").write_text(f"{arm.name}{arm.seed}")
            work.finish("rows.bin")
            work.facts.update(tokens=size, tokens_per_epoch=size, sequence_length=256, bytes=size)

        bench.root.build(spec.packed(arm, POOL), make, spec={})
    return ComparisonPlan.make(bench.root, spec, POOL)


def test_a_registered_budget_stays_when_replicates_are_added(bench):
    first = with_sizes(bench, 2, {42: 5_120, 43: 4_864})
    looks.register(bench.root, first)
    assert {run.tokens for run in first.runs} == {4_864}
    later = with_sizes(bench, 3, {42: 5_120, 43: 4_864, 44: 5_376})
    assert {run.id for run in first.runs} < {run.id for run in later.runs}


def test_a_later_draw_that_holds_less_than_was_registered_is_said_with_the_way_out(bench):
    looks.register(bench.root, with_sizes(bench, 2, {42: 5_120, 43: 4_864}))
    with pytest.raises(InputError, match=r"on 4,864 tokens.*draw of rand16 holds only 4,608: set train\.tokens"):
        with_sizes(bench, 3, {42: 5_120, 43: 4_864, 44: 4_608})
