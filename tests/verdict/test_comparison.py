"""What a comparison refuses before anything is spent, and the runs that it plans."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.records import code
from tasks.records.layout import PoolFolder, arm_id, pool_id, run_id
from tasks.records.scaling import ModelShape, parameter_counts
from tasks.records.scores import write_strata
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.artifact import Work, code_version
from tasks.store.blobs import Blob
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tests.planted import Bench

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
        (
            [TOP, Arm(name="random", select="random", order="shuffled")],
            [1],
            r"arm\.order: best-first \(top\) against shuffled \(random\)",
        ),
        ([TOP, RANDOM, Arm(name="again")], [1], "arms top and again are the same selection.*set control to aa"),
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


def test_halves_of_an_unrated_pool_are_refused_before_anything_is_trained():
    arms = [RANDOM, Arm(name="all", select="all")]
    with pytest.raises(InputError, match="target is 'lower half', but the pool is unrated"):
        ComparisonSpec("test", Pool(format="unrated"), arms, [1], TRAINING, target="lower half").require_matched()
    with pytest.raises(InputError, match="target is 'outside/wiki', but the texts from elsewhere are none"):
        ComparisonSpec("test", Pool(), arms, [1], TRAINING, target="outside/wiki").require_matched()
    ComparisonSpec("test", Pool(format="unrated"), arms, [1], TRAINING).require_matched()


@pytest.mark.parametrize(
    ("scores", "refused"),
    [
        ([np.nan] * 20, "unrated or all rated alike"),
        ([2.0] * 20, "unrated or all rated alike"),
        (
            [1.0] * 13 + [2.0] * 7,
            "'upper half', but of the holdout's documents 7 of 7 blocks are in it.*needs at least 8",
        ),
        ([1.0] * 12 + [2.0] * 8, None),
    ],
)
def test_a_holdout_whose_half_cannot_decide_is_refused_before_anything_is_trained(tmp_path, scores, refused):
    """A prebuilt pool may have a score, and its files then lack it; equal scores stay together."""
    root, spec = Root(tmp_path), asked(target="upper half")
    pack(root, spec, {"top": "a", "random": "b"})

    def held(work: Work) -> None:
        table = {"document": range(20), "cluster": range(20), "bytes": [9] * 20, "source": [""] * 20}
        pq.write_table(pa.table(table), work.temporary("documents.parquet"))
        work.finish("documents.parquet")

    def strata(work: Work) -> None:
        write_strata(work, np.array(scores))
        work.facts.update(scores={str(score): score for score in scores if np.isfinite(score)})

    root.build(PoolFolder("pool").holdout, held, spec={})
    root.build(PoolFolder("pool").strata(spec.score), strata, spec={})
    with pytest.raises(InputError, match=refused) if refused else contextlib.nullcontext():
        ComparisonPlan.make(root, spec, "pool")


def test_equal_arms_are_a_control_with_seeds_of_their_own():
    arms = [TOP, Arm(name="again")]
    spec = asked(arms, seeds=(1, 3), control="aa")
    spec.require_matched()
    assert [spec.seeds_of(arm) for arm in arms] == [[1, 3], [5, 7]]
    assert asked(seeds=(1, 3)).seeds_of(RANDOM) == [1, 3]


def test_a_control_has_equal_arms_and_seeds_that_cannot_be_paired(tmp_path):
    with pytest.raises(InputError, match="pairing is seed, but the arms of a control have seeds of their own"):
        asked([TOP, Arm(name="again")], control="aa", pairing="seed").require_matched()
    spec = asked([TOP, RANDOM], control="aa")
    pack(root := Root(tmp_path), spec, {"top": "rows", "random": "others"})
    with pytest.raises(InputError, match="control is aa, but the arms top and random hold different rows"):
        ComparisonPlan.make(root, spec, "pool")


def pack(root: Root, spec: ComparisonSpec, rows: dict[str, str]) -> None:
    """Packed rows of each arm of the comparison, which are only ever compared."""
    for arm in spec.arms:

        def make(work: Work, arm: Arm = arm) -> None:
            work.temporary("rows.bin").write_text(rows[arm.name])
            work.finish("rows.bin")
            work.facts.update(tokens=640, tokens_per_epoch=640, sequence_length=64, bytes=1_280)

        root.build(spec.packed(arm, "pool"), make, spec={})


def test_arms_that_turn_out_to_hold_the_same_rows_are_refused_before_they_are_trained(tmp_path):
    root, arms = Root(tmp_path), [Arm(name="whole", select="all"), Arm(name="top", share=1.0)]
    spec = asked(arms)
    spec.require_matched()  # their parameters differ
    pack(root, spec, {"whole": "rows", "top": "rows"})
    with pytest.raises(InputError, match="arms whole and top are the same selection, the same documents in the same"):
        ComparisonPlan.make(root, spec, "pool")
    twice = asked([arms[0], Arm(name="top", select="top", share=0.5, epochs=2)])
    twice.require_matched()
    pack(root, twice, {"whole": "rows", "top": "rows"})
    assert [run.tokens for run in ComparisonPlan.make(root, twice, "pool").runs] == [640] * 4, "read once against twice"
    control = ComparisonPlan.make(root, asked(arms, control="aa"), "pool")
    assert [run.experiment.seed for run in control.runs] == [1, 2, 4, 5]


def test_replicates_draw_random_arms_anew_and_share_the_others():
    spec = asked(seeds=(1, 2, 3), redraw=("init", "order", "sample"))
    spec.require_matched()
    assert [arm.seed for arm in spec.draws_of(RANDOM)] == [42, 43, 44] and spec.draws_of(TOP) == [TOP]
    assert spec.held == () and asked().held == () and asked().draws_of(RANDOM) == [RANDOM]
    assert asked(redraw=("sample", "init")).held == ("order",)


def test_replicates_of_a_control_keep_their_seeds_when_more_are_added():
    arms = [RANDOM, Arm(name="again", select="random")]
    seeds = {n: [asked(arms, range(1, n + 1), control="aa", redraw=("init", "sample")).seeds_of(arm) for arm in arms] for n in (2, 3)}  # fmt: skip
    assert seeds == {2: [[1, 3], [2, 4]], 3: [[1, 3, 5], [2, 4, 6]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"redraw": ("sample",)}, "redraw is sample, by which all replicates of top .* are one training: add init"),
        ({"redraw": ()}, "redraw is empty"),
        (
            {
                "arms": [
                    Arm(name="top", order="shuffled"),
                    Arm(name="random", select="random", order="shuffled"),
                ],
                "redraw": ("init", "order"),
                "training": TRAINING.model_copy(update={"engine": "nanochat"}),
            },
            "nanochat can reorder random only by drawing it anew: add sample",
        ),
        (
            {"arms": [RANDOM, Arm(name="again", select="random", seed=7)], "redraw": ("init", "sample")},
            "random and again are the same selection",
        ),
    ],
)
def test_replicates_that_would_be_one_training_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        asked(**changes).require_matched()


def test_each_replicate_is_planned_on_its_own_draw_with_one_budget(tmp_path):
    root, spec = Root(tmp_path), asked(redraw=("init", "sample"))
    pool = "pool"
    bottom = Arm(name="bottom", select="bottom")
    for arm, rows in ((TOP, 30), (bottom, 11), *zip(spec.draws_of(RANDOM), (20, 10), strict=True)):

        def make(work: Work, arm: Arm = arm, rows: int = rows) -> None:
            work.temporary("rows.bin").write_text(f"{arm.name}{arm.seed}")
            work.finish("rows.bin")
            work.facts.update(tokens=rows * 64, tokens_per_epoch=rows * 64, sequence_length=64, bytes=rows * 128)

        root.build(spec.packed(arm, pool), make, spec={})
    assert spec.missing_arms(root, pool) == []
    plan = ComparisonPlan.make(root, spec, pool)
    assert {run.tokens for run in plan.runs} == {640}
    assert len(set(plan.runs_by_arm["random"])) == 2
    assert [len({run.arm_id for run in plan.runs if run.experiment.arm.name == name}) for name in ("top", "random")] == [1, 2]  # fmt: skip
    assert {run.experiment.held for run in plan.runs} == {("order",)}
    training = TRAINING.model_copy(update={"tokens": 640, "batch_tokens": 128})
    assert ComparisonPlan.make(root, asked(redraw=("sample",), training=training), pool).replicates == 2
    all_rows = asked([bottom, RANDOM], redraw=("sample",), training=training)
    all_rows.require_matched()
    with pytest.raises(
        InputError, match=r"replicates of bottom .* one training: add init, or train\.tokens below what"
    ):
        ComparisonPlan.make(root, all_rows, pool)


def test_a_factor_that_is_meant_is_allowed():
    asked([TOP, Arm(name="worst-first", order="worst-first")], allow=["arm.order"]).require_matched()


@pytest.mark.parametrize(("budget", "tokens"), [("tokens", [640, 640]), ("bytes", [640, 320])])
def test_every_arm_is_planned_with_every_seed_on_its_budget(tmp_path, budget, tokens):
    root, spec = Root(tmp_path), asked(budget=budget)
    assert spec.missing_arms(root, "pool") == [TOP, RANDOM]
    for arm, bytes_a_token, rows in ((TOP, 2, 10), (RANDOM, 4, 30)):
        counted = {"tokens": rows * 64, "tokens_per_epoch": rows * 64, "sequence_length": 64}
        counted["bytes"] = bytes_a_token * rows * 64
        name = f"arms/{arm_id(arm, spec.pool, 'pool')}/packed/64-split"

        def make(work: Work, arm: Arm = arm, counted: dict[str, int] = counted) -> None:
            work.temporary("rows.bin").write_text(arm.name)
            work.finish("rows.bin")
            work.facts.update(counted)

        root.build(name, make, spec={})
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
    root.build(f"runs/{plan.runs[2].id}/questions/bundle", lambda work: None, spec={})
    assert plan.unscored(root, [], ["bundle"]) == [*plan.runs[:2], plan.runs[3]]
    assert ("training.tokens" in spec.allowed) == (budget == "bytes")


def test_a_budget_by_ratio_is_a_number_of_tokens_for_all_arms_and_names_the_same_runs(tmp_path):
    root, by_ratio = Root(tmp_path), TRAINING.model_copy(update={"tokens_per_parameter": 1e-4})
    pack(root, spec := asked(training=by_ratio), {"top": "a", "random": "b"})
    runs = ComparisonPlan.make(root, spec, "pool").runs
    tokens = int(1e-4 * parameter_counts(ModelShape.of_depth(1, 64)).scaling)
    assert [run.tokens for run in runs] == [tokens] * 4
    given = asked(training=TRAINING.model_copy(update={"tokens": tokens}))
    assert [run.id for run in runs] == [run.id for run in ComparisonPlan.make(root, given, "pool").runs]
    with pytest.raises(InputError, match="the arm top has only 640 in its packed rows"):
        ComparisonPlan.make(root, asked(training=by_ratio.model_copy(update={"tokens_per_parameter": 1.0})), "pool")


@pytest.fixture
def begun(bench: Bench) -> tuple[Bench, ComparisonPlan]:
    """A comparison of which both arms have one complete run, and one that is not yet trained."""
    runs = []
    for arm in ("top16", "rand16"):
        packed = bench.packed(f"arms/{arm}-arm/packed/256-split", rows=arm)
        for seed in (1, 2):
            experiment = bench.experiment(arm, seed)
            runs.append(PlannedRun(run_id(experiment, f"{arm}-arm"), f"{arm}-arm", experiment))
        bench.run(arm, 1, inputs={"packed": packed})
    return bench, ComparisonPlan(asked([run.experiment.arm for run in runs[::2]]), "pool", tuple(runs))


def change_facts(bench: Bench, run: PlannedRun, **facts: Any) -> None:
    """Change what the result of a run says."""
    manifest = bench.root.find(f"runs/{run.id}/result")
    changed = dataclasses.replace(manifest, facts={**manifest.facts, "code": code_version(), **facts})
    (bench.root.path(manifest.name) / "manifest.json").write_text(changed.to_json())


def test_complete_runs_are_held_against_each_other_before_more_are_trained(begun):
    bench, plan = begun
    for run in plan.runs[::2]:
        change_facts(bench, run)
    plan.require_alike(bench.root)
    change_facts(bench, plan.runs[2], device="NVIDIA A100")
    with pytest.raises(InputError, match=r"device: cpu \(top16-.*\) against NVIDIA A100 \(rand16-"):
        plan.require_alike(bench.root)
    allowed = dataclasses.replace(plan.spec, allow=["device"])
    dataclasses.replace(plan, spec=allowed).require_alike(bench.root)


def test_runs_of_another_release_are_not_mixed_in_unless_allowed(begun):
    bench, plan = begun
    for run in plan.runs[::2]:
        change_facts(bench, run, code="0.0.9")
    first = plan.runs[0].id
    message = f"{first} was trained by version 0.0.9, the missing runs would be by {code_version()}: .*allow: code"
    with pytest.raises(InputError, match=message):
        plan.require_alike(bench.root)
    dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, allow=["code"])).require_alike(bench.root)


def test_runs_on_an_arm_that_was_made_anew_are_not_mixed_in(begun):
    bench, plan = begun
    for run in plan.runs[::2]:
        change_facts(bench, run)
    name = "arms/top16-arm/packed/256-split"
    bench.root.remove(name)
    plan.require_alike(bench.root)
    bench.packed(name, rows="other rows")
    with pytest.raises(InputError, match=f"runs/{plan.runs[0].id}/result was made from another {name}"):
        plan.require_alike(bench.root)


@pytest.mark.parametrize("version", ["PREPARATION_VERSION", "TRAINING_VERSION"])
def test_runs_of_another_version_of_preparation_or_training_are_not_found(tmp_path, monkeypatch, version):
    """A comparison that began before an update begins anew: nothing of it is mixed in."""
    root, blobs = Root(tmp_path), [Blob("a.parquet", 10, "e1")]

    def plan() -> ComparisonPlan:
        spec, pool = asked(), pool_id(Pool(), blobs)
        runs = [Experiment(arm=arm, training=TRAINING, seed=1) for arm in spec.arms]
        arms = [arm_id(arm, Pool(), pool) for arm in spec.arms]
        planned = (PlannedRun(run_id(each, arm), arm, each) for each, arm in zip(runs, arms, strict=True))
        return ComparisonPlan(spec, pool, tuple(planned))

    for run in plan().runs:
        root.build(f"runs/{run.id}/result", lambda work: None, spec={})
    assert plan().missing(root) == []
    monkeypatch.setattr(code, version, getattr(code, version) + 1)
    assert len(plan().missing(root)) == 2
