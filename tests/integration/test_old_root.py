"""A root made before names held one content: what stays readable, and what is refused by name with the remedy.

The table of the playbook ("After an update"), row by row.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.engines import entry
from tasks.engines.inputs import open_inputs
from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.job import Job
from tasks.records.layout import ArmFolder, PoolFolder, RunFolder, arm_id, pool_id, run_id
from tasks.records.verdict import Verdict
from tasks.reports.report import write_report, write_verdict
from tasks.spec import Arm, Pool
from tasks.store.artifact import MANIFEST, fingerprint
from tasks.store.blobs import Blob
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.judge import judge
from tests.engines.builtin.conftest import ARM as SMALL_ARM
from tests.engines.builtin.conftest import POOL as SMALL_POOL
from tests.engines.builtin.conftest import make_experiment, write_artifacts
from tests.planted import POOL, TRAINING, Bench

NEW_FACTS = ("training_version", "code_commit", "torch", "cuda")
"""What results record since then."""
BLOBS = [Blob("a.parquet", 10, "e1")]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def age(bench: Bench, name: str) -> None:
    """Write a manifest as it was written then."""

    def change(manifest: dict[str, Any]) -> None:
        del manifest["made_from"]
        for fact in NEW_FACTS:
            manifest["facts"].pop(fact, None)
        if "training" in manifest["spec"]:
            del manifest["spec"]["training"]["packing"]

    rewrite(bench.root.path(name) / MANIFEST, change)


def old_run(bench: Bench, arm: str, seed: int, offset: float = 0.0) -> str:
    """A finished run of then, under the name that it had then, with its job and its entry in the ledger."""
    run, experiment = bench.run(arm, seed, offset), bench.experiment(arm, seed)
    old = f"{arm}-d4-s{seed}-{fingerprint(experiment.identity(), f'{arm}-arm')}"
    assert old != run
    age(bench, RunFolder(run).result)
    ledger.open_entry(bench.root, experiment, POOL, f"{arm}-arm")
    ledger.finish(bench.root, run, "completed", facts=bench.root.find(RunFolder(run).result).facts)
    bench.root.path(RunFolder(run).folder).rename(bench.root.path(RunFolder(old).folder))
    rewrite(bench.root.path(RunFolder(old).file("run.json")), lambda content: content.update(run=old))
    rewrite(
        bench.root.path(RunFolder(old).result) / MANIFEST, lambda content: content.update(name=RunFolder(old).result)
    )
    job = Job.of(bench.root, experiment, POOL, f"{arm}-arm").model_dump(mode="json", exclude={"run"}) | {"format": 1}
    bench.root.path(RunFolder(old).file("job.json")).write_text(json.dumps(job))
    return old


@pytest.fixture
def old(bench: Bench) -> dict[str, list[str]]:
    """{arm: its old runs}."""
    return {
        arm: [old_run(bench, arm, seed, offset) for seed in (1, 2)] for arm, offset in (("top", -0.05), ("random", 0.0))
    }


def test_finished_runs_have_their_report_and_their_place_in_the_ledger(bench, old):
    for run in old["top"]:
        assert run in write_report(bench.root, run).read_text()
    assert {each.run for each in ledger.entries(bench.root)} == {run for runs in old.values() for run in runs}


def test_finished_runs_are_judged_among_themselves_and_what_they_do_not_say_is_listed(bench, old):
    verdict = judge(bench.root, "old", old)
    assert verdict.comparisons[0].better == "top"
    assert {"torch", "cuda", "evaluation.content"} <= set(verdict.matched.unknown)
    assert "Not compared: torch" in (write_verdict(bench.root, verdict).path / "report.html").read_text()


def test_old_runs_and_new_ones_are_not_judged_together(bench, old):
    new = [bench.run("random", seed) for seed in (1, 2)]
    with pytest.raises(InputError, match=r"training_version: nothing \(top-.*\) against 1 \(random-"):
        judge(bench.root, "mixed", {"top": old["top"], "random": new})


def test_an_old_run_is_not_scored_again(bench, old):
    with pytest.raises(InputError, match=r"job\.json is not a valid job file \(format: .*Start the run again"):
        entry.score(bench.root, old["top"][0])


def test_an_old_verdict_is_read_and_its_report_is_the_one_of_then(bench, old):
    made = write_verdict(bench.root, judge(bench.root, "then", old))
    age(bench, made.name)

    def change(verdict: dict[str, Any]) -> None:
        del verdict["control"], verdict["matched"]["unknown"]

    rewrite(made.path / "verdict.json", change)
    assert Verdict.read(made.path / "verdict.json").matched.unknown == {}
    assert write_report(bench.root, made.name.removeprefix("verdicts/")) == made.path / "report.html"


def test_an_old_pool_is_not_reused_a_new_one_is_made_beside_it():
    pool = Pool()
    old = f"{pool.name}-{fingerprint(pool.identity(), [[b.name, b.size, b.etag] for b in BLOBS])}"
    assert pool_id(pool, BLOBS) != old
    assert arm_id(Arm(), pool, pool_id(pool, BLOBS)) != arm_id(Arm(), pool, old)


def test_an_old_arm_is_not_trained_on(bench):
    root, arm = bench.root, ArmFolder("top-arm")
    for name in (PoolFolder(POOL).tokenizer, PoolFolder(POOL).evaluation, arm.text):
        root.build(name, lambda work: None, spec={})
    packed = arm.packed(TRAINING.sequence_length, TRAINING.packing)
    bench.packed(packed)
    age(bench, packed)
    job = Job.of(root, bench.experiment("top", 1), POOL, arm.id)
    with pytest.raises(InputError, match=f"{packed} does not record the .*: delete the folder {packed} and run again"):
        open_inputs(root, job)


def test_an_arm_of_before_strata_is_not_trained_on(tmp_path):
    """Of version 2 of the preparation, when scores were a part of the holdout."""
    root = Root(tmp_path)
    write_artifacts(root)
    job = Job.of(root, make_experiment(), SMALL_POOL, SMALL_ARM)
    open_inputs(root, job)
    root.remove(PoolFolder(SMALL_POOL).strata(Pool().score))
    with pytest.raises(
        InputError, match=r"There is no complete artifact pools/.*/strata/.*: check the name, or prepare it"
    ):
        open_inputs(root, job)


def test_a_comparison_begun_then_begins_anew(bench, old):
    arms = [bench.experiment(arm, 1).arm for arm in old]
    spec = ComparisonSpec("begun", Pool(), arms, (1, 2), TRAINING)
    experiments = [bench.experiment(arm, seed) for arm in old for seed in (1, 2)]
    runs = [PlannedRun(run_id(each, f"{each.arm.name}-arm"), f"{each.arm.name}-arm", each) for each in experiments]
    plan = ComparisonPlan(spec, POOL, tuple(runs))
    assert plan.missing(bench.root) == runs, "none of the old runs counts as complete"
    plan.require_alike(bench.root)
