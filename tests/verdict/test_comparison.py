"""What a comparison refuses before anything is spent, and the runs that it plans."""

from collections.abc import Sequence
from typing import Any

import pytest

from tasks.errors import InputError
from tasks.records import code, ledger
from tasks.records.layout import arm_id
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun

TOP, RANDOM = Arm(name="top"), Arm(name="random", select="random")
TRAINING = Training(depth=1, sequence_length=64, wandb="disabled")


def asked(arms: Sequence[Arm] = (TOP, RANDOM), seeds: Sequence[int] = (1, 2), **changes: Any) -> ComparisonSpec:
    """A comparison with some things changed."""
    return ComparisonSpec("test", Pool(), arms, seeds, **{"training": TRAINING, **changes})


@pytest.mark.parametrize(
    ("arms", "seeds", "message"),
    [
        ([TOP, Arm(name="top", select="random")], [1], "arms are named top, top"),
        ([TOP, RANDOM], [1, 2, 1], "seeds are 1, 2, 1"),
        ([TOP, Arm(name="random", select="random", order="shuffled")], [1], r"arm\.order: best-first against shuffled"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_it_is_trained(arms, seeds, message):
    with pytest.raises(InputError, match=message):
        asked(arms, seeds).require_matched()


def test_a_budget_from_the_front_of_the_arms_is_refused_unless_it_is_meant():
    front = TRAINING.model_copy(update={"budget_from": "front"})
    with pytest.raises(InputError, match=r"the front of top, random, not a fair sample.*allow: training\.budget_from"):
        asked(training=front).require_matched()
    asked(training=front, allow=["training.budget_from"]).require_matched()


def test_a_factor_that_is_meant_is_allowed():
    asked([TOP, Arm(name="worst-first", order="worst-first")], allow=["arm.order"]).require_matched()


@pytest.mark.parametrize(("budget", "tokens"), [("tokens", [640, 640]), ("bytes", [640, 320])])
def test_every_arm_is_planned_with_every_seed_on_its_budget(tmp_path, budget, tokens):
    root, spec = Root(tmp_path), asked(budget=budget)
    assert spec.missing_arms(root, "pool") == [TOP, RANDOM]
    for arm, bytes_a_token, rows in ((TOP, 2, 10), (RANDOM, 4, 30)):
        counted = {"tokens": rows * 64, "tokens_per_epoch": rows * 64, "sequence_length": 64}
        counted["bytes"] = bytes_a_token * rows * 64
        name = f"arms/{arm_id(arm, 'pool')}/packed/64-split"
        root.build(name, lambda work, counted=counted: work.facts.update(counted), spec={})
    assert spec.missing_arms(root, "pool") == []
    plan = ComparisonPlan.make(root, spec, "pool")
    assert [(run.experiment.arm, run.experiment.seed) for run in plan.runs] == [(TOP, 1), (TOP, 2), (RANDOM, 1), (RANDOM, 2)]  # fmt: skip
    assert [run.experiment.training.tokens for run in plan.runs[::2]] == tokens
    assert plan.runs_by_arm == {"top": [run.id for run in plan.runs[:2]], "random": [run.id for run in plan.runs[2:]]}
    root.build(f"runs/{plan.runs[0].id}/result", lambda work: None, spec={})
    assert plan.missing(root) == list(plan.runs[1:])
    assert plan.unscored(root, []) == []
    root.build(f"runs/{plan.runs[3].id}/outside/news", lambda work: None, spec={})
    assert plan.unscored(root, ["news"]) == list(plan.runs[:3])
    assert ("training.tokens" in spec.allowed) == (budget == "bytes")


def test_runs_of_other_code_are_not_mixed_in_unless_allowed(tmp_path, monkeypatch):
    root, experiment = Root(tmp_path), Experiment(arm=TOP)
    run = ledger.open_entry(root, experiment, "pool", "top-arm").run
    ledger.finish(root, run, "completed", facts={})
    root.build(f"runs/{run}/result", lambda work: None, spec={})
    runs = (PlannedRun(run, "top-arm", experiment), PlannedRun("not-yet", "top-arm", experiment))
    plan = ComparisonPlan(asked(), "pool", runs)
    plan.require_same_code(root)
    monkeypatch.setattr(code, "commit", lambda: "0123456789")
    plan.require_same_code(root)  # a commit that leaves the output as it was
    monkeypatch.setattr(code, "TRAINING_VERSION", code.TRAINING_VERSION + 1)
    message = f"{run} was trained by commit .*, the missing runs would be by commit 0123456789 .*allow: commit"
    with pytest.raises(InputError, match=message):
        plan.require_same_code(root)
    ComparisonPlan(asked(allow=["commit"]), "pool", runs).require_same_code(root)
