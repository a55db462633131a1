import pytest

from tasks.errors import InputError
from tasks.records import code, ledger
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.verdict.matched import differences, differences_of_runs, require_matched

TOP = Experiment(arm=Arm(name="top16", select="top"))


def random_arm(**changes):
    return Experiment(arm=Arm(name="rand16", select="random", share=0.3, seed=9), seed=4, **changes)


def test_selection_and_seed_are_no_differences():
    assert differences(TOP, random_arm()) == {}


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"training": Training(depth=12)}, "training.depth", "20 against 12"),
        ({"training": Training(tokens=5_000_000)}, "training.tokens", "nothing against 5,000,000"),
        ({"training": Training(precision="fp8")}, "training.precision", "bf16 against fp8"),
        ({"training": Training(engine="nanochat")}, "training.engine", "builtin against nanochat"),
        ({"pool": Pool(source="az://raw/other")}, "pool.source", "az://raw/fineweb-edu against az://raw/other"),
        ({"pool": Pool(score={"factual_accuracy_average": 1.0})}, "pool.score", "factual"),
        ({"pool": Pool(vocab_size=1_024)}, "pool.vocab_size", "32,768 against 1,024"),
        ({"pool": Pool(holdout_documents=5)}, "pool.holdout_documents", "20,000 against 5"),
    ],
)
def test_everything_else_is_named(changes, path, text):
    found = differences(TOP, random_arm(**changes))
    assert list(found) == [path]
    assert text in found[path]


def test_order_and_deduplication_are_differences_that_can_be_meant():
    other = Experiment(arm=Arm(name="top16-shuffled", order="shuffled"))
    found = differences(TOP, other)
    assert found == {"arm.order": "best-first against shuffled"}
    with pytest.raises(
        InputError, match=r"top and shuffled differ.*arm.order: best-first against shuffled.*allow: arm.order"
    ):
        require_matched(["top", "shuffled"], [found])
    assert require_matched(["top", "shuffled"], [found], ["arm.order"]) == {
        "arm.order": "top and shuffled: best-first against shuffled"
    }
    assert require_matched(["top", "shuffled"], [found], ["arm"])
    assert list(differences(TOP, Experiment(arm=Arm(deduplicate=True)))) == ["arm.deduplicate"]


def test_all_pairs_that_differ_are_named():
    pairs = [{"commit": "a against b"}, {"commit": "b against c", "steps": "1 against 2"}]
    assert require_matched(["x", "y", "z"], pairs, ["commit", "steps"]) == {
        "commit": "x and y: a against b; y and z: b against c",
        "steps": "y and z: 1 against 2",
    }


def test_how_a_run_is_made_is_no_difference():
    other = Experiment(arm=Arm(name="rand16", select="random"), training=Training(gpus=8, micro_batch=4, save_every=10))
    assert differences(TOP, other) == {}


def manifest(bench, run):
    return bench.root.open(f"runs/{run}/result").manifest


def test_runs_are_compared_by_what_they_read_and_did(bench):
    a = manifest(bench, bench.run("top16", 1))
    assert differences_of_runs(bench.root, a, manifest(bench, bench.run("rand16", 1))) == {}
    b = manifest(bench, bench.run("rand16", 2, inputs={"evaluation": "other"}, facts={"tokens": 7, "code": "0.2.0"}))
    found = differences_of_runs(bench.root, a, b)
    assert found == {"evaluation": "eval against other", "tokens": "1,000,000 against 7", "code": "0.1.0 against 0.2.0"}


def test_runs_by_other_versions_of_the_code_differ_in_their_commit(bench, monkeypatch):
    found = []
    for arm, version in (("top16", 1), ("rand16", 2)):
        monkeypatch.setattr(code, "TRAINING_VERSION", version)
        found.append(manifest(bench, bench.run(arm, 1)))
        ledger.open_entry(bench.root, bench.experiment(arm, 1), "pool", f"{arm}-arm")
    different = differences_of_runs(bench.root, *found)["commit"]
    assert "training 1) against" in different and different.endswith("training 2)")
    assert differences_of_runs(bench.root, found[0], manifest(bench, bench.run("rand16", 2))) == {}  # not in the ledger
