"""What is equal between arms and runs, what differs, what is not known."""

import pytest

from tasks.errors import InputError
from tasks.records import ledger
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.verdict.matched import differences, differences_of_runs, require_matched, unknown_of_runs

TOP = Experiment(arm=Arm(name="top16", select="top"))


def random_arm(**changes):
    return Experiment(arm=Arm(name="rand16", select="random", share=0.3, seed=9), seed=4, **changes)


def of_two(a, b):
    return differences({"a": a, "b": b})


def test_selection_and_seed_are_no_differences():
    assert of_two(TOP, random_arm()) == {}
    assert of_two(TOP, Experiment(arm=Arm(name="often", share=0.05, epochs=4))) == {}


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"training": Training(depth=12)}, "training.depth", "20 (a) against 12 (b)"),
        ({"training": Training(tokens=5_000_000)}, "training.tokens", "nothing (a) against 5,000,000 (b)"),
        ({"training": Training(precision="fp8")}, "training.precision", "bf16 (a) against fp8 (b)"),
        ({"training": Training(engine="nanochat")}, "training.engine", "builtin (a) against nanochat (b)"),
        ({"pool": Pool(source="az://raw/other")}, "pool.source", "$FABRATING_SOURCE (a) against az://raw/other (b)"),
        ({"pool": Pool(score={"factual_accuracy_average": 1.0})}, "arm.population", "factual"),
        ({"pool": Pool(vocab_size=1_024)}, "pool.vocab_size", "32,768 (a) against 1,024 (b)"),
        ({"pool": Pool(holdout_documents=5)}, "pool.holdout_documents", "20,000 (a) against 5 (b)"),
    ],
)
def test_everything_else_is_named(changes, path, text):
    found = of_two(TOP, random_arm(**changes))
    assert list(found) == [path]
    assert text in found[path]


def test_order_and_deduplication_are_differences_that_can_be_meant():
    other = Experiment(arm=Arm(name="top16-shuffled", order="shuffled"))
    found = differences({"top": TOP, "shuffled": other})
    assert found == {"arm.order": "best-first (top) against shuffled (shuffled)"}
    with pytest.raises(InputError, match=r"differ.*arm.order: best-first \(top\) against.*allow: arm.order"):
        require_matched(found)
    assert require_matched(found, ["arm.order"]) == found
    assert require_matched(found, ["arm"]) == found
    assert list(of_two(TOP, Experiment(arm=Arm(deduplicate=True)))) == ["arm.deduplicate"]


def test_each_value_is_named_with_those_that_have_it():
    many = {f"a{i}": Experiment(training=Training(depth=20 - (i == 3) - 2 * (i > 4))) for i in range(9)}
    text = "20 (a0, a1, a2 and 1 more) against 19 (a3) against 18 (a5, a6, a7 and 1 more)"
    assert differences(many) == {"training.depth": text}


def test_runs_of_two_pools_are_told_the_way_out(bench):
    pools = [Pool(source=f"az://ready/{name}", format="prebuilt") for name in ("top16", "rand16")]
    _, found = runs_of(bench, *({"pool": pool, "inputs": {"pool": f"pool-{i}"}} for i, pool in enumerate(pools)))
    told = r"different holdouts \(pool.source: az://ready/top16 .* against [^;]*\).*data.sources.*compare/ready"
    with pytest.raises(InputError, match=told):
        require_matched(differences_of_runs(bench.root, found))


def test_how_a_run_is_made_is_no_difference():
    other = Experiment(arm=Arm(name="rand16", select="random"), training=Training(gpus=8, micro_batch=4, save_every=10))
    assert of_two(TOP, other) == {}


def runs_of(bench, *changes):
    """Runs of arms arm0, arm1, ... with these facts and inputs changed: their ids, and the manifests of their results."""
    ids = [bench.run(f"arm{i}", 1, **change) for i, change in enumerate(changes)]
    return ids, [bench.root.find(f"runs/{run}/result") for run in ids]


def test_runs_are_compared_by_what_they_read_and_did(bench):
    (a, b), found = runs_of(bench, {}, {})
    assert differences_of_runs(bench.root, found) == {}
    changes = {"inputs": {"evaluation": "other"}, "facts": {"tokens": 7, "code": "0.2.0"}}
    (a, _, b), found = runs_of(bench, {}, {}, changes)
    assert differences_of_runs(bench.root, found[::2]) == {
        "evaluation": f"eval ({a}) against other ({b})",
        "tokens": f"1,000,000 ({a}) against 7 ({b})",
        "code": f"0.1.0 ({a}) against 0.2.0 ({b})",
    }


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("engine", "nanochat"),
        ("scored_by", "nanochat"),
        ("device", "NVIDIA H100 80GB HBM3"),
        ("compute", "cpu, fp32, autograd, FlexAttention"),
        ("gpus", 8),
        ("torch", "2.14.0+cpu"),
        ("cuda", "13.0"),
        ("training_version", 2),
    ],
)
def test_runs_of_unlike_machines_and_packages_are_told_apart_wherever_they_stand(bench, fact, value):
    """Not neighbours alone: between those that differ lies one that does not say."""
    (a, unsure, b), found = runs_of(bench, {}, {"facts": {fact: None}}, {"facts": {fact: value}})
    different = differences_of_runs(bench.root, found)[fact]
    assert f"({a}" in different and different.endswith(f"{value} ({b})")
    if fact != "training_version":
        assert unknown_of_runs(bench.root, found)[fact] == f"not known for {unsure}"


def test_runs_from_before_there_were_versions_are_unlike_those_after(bench):
    (a, b), found = runs_of(bench, {"facts": {"training_version": None}}, {})
    assert differences_of_runs(bench.root, found)["training_version"] == f"nothing ({a}) against 1 ({b})"


def test_of_runs_from_before_there_were_versions_the_commit_in_the_ledger_counts(bench, monkeypatch):
    old = {"facts": {"training_version": None}}
    (a, b, c), found = runs_of(bench, old, old, old)
    assert differences_of_runs(bench.root, found) == {}
    assert unknown_of_runs(bench.root, found)["commit"] == f"not known for {a}, {b}, {c}"
    for arm, commit in (("arm0", "aaa"), ("arm1", "bbb")):
        monkeypatch.setattr("tasks.records.code.commit", lambda commit=commit: commit)
        ledger.open_entry(bench.root, bench.experiment(arm, 1), "pool", f"{arm}-arm")
    assert differences_of_runs(bench.root, found) == {"commit": f"aaa ({a}) against bbb ({b})"}
    assert unknown_of_runs(bench.root, found)["commit"] == f"not known for {c}"
