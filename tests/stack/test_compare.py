"""`compare/demo` on the running stack: arms prepared and trained as its children, judged, shown, and not made twice."""

import json

import pytest

from tasks.store.root import Root
from tests.stack.conftest import ARM, artifacts_of, below, children_of, run_deployment

pytestmark = pytest.mark.stack

RANDOM = {**ARM, "name": "rand16", "select": "random"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One root for all tests of this file: what the first one makes, the others find."""
    return tmp_path_factory.mktemp("root")


def compare(stack, client, parameters, root, **changes):
    """A run of `compare/demo` that has ended, and its children by flow."""
    given = {
        "data": parameters["data"],
        "train": {**parameters["train"], "tokens": 32_768},
        "root": str(root),
        "seeds": None,
        "replicates": 2,
        "name": "test",
    }
    given |= {"arms": [ARM, RANDOM], **changes}
    run = run_deployment(client, "compare/demo", given, minutes=9)
    return run, below(client, run)


def test_two_arms_with_two_replicates_end_in_a_verdict_and_a_report(stack, client, parameters, root):
    run, children = compare(stack, client, parameters, root)
    assert run.state.is_completed()
    assert children == {"prepare": 1, "train": 4}, "one child prepares all arms"
    named = {child.name for child in children_of(client, run)}
    assert named >= set(Root(root).folders("runs")), "a child is called as the run that it makes"
    trainers = {json.loads(lock.read_text())["pid"] for lock in root.glob("runs/*/.lock")}
    assert len(trainers) == 1, "one process trained all"
    store = Root(root)
    drawn = [name for name in store.names("arms") if name.endswith("/text")]
    assert len(drawn) == 3, "a draw of the random arm for each replicate"
    (name,) = store.names("verdicts")
    verdict = json.loads((store.open(name).path / "verdict.json").read_text())
    (pair,) = verdict["comparisons"]
    assert (pair["a"], pair["b"], pair["seeds"]) == ("top16", "rand16", 2)
    assert pair["degrees_of_freedom"] >= 1 and pair["warnings"][0] == "two seeds"
    assert pair["low"] <= pair["difference"] <= pair["high"]
    tokens = {store.find(f"runs/{run}/result").facts["tokens"] for arm in verdict["arms"] for run in arm["runs"]}
    assert len(tokens) == 1
    report = (store.path(name) / "report.html").read_text()
    assert "took, rand16 did not" in report and "What the models write" in report
    shown = {artifact.key: artifact.data for artifact in artifacts_of(client, run)}
    assert pair["sentence"].split(" bits per byte")[0] in shown["verdict-test"]
    assert "2 seeds an arm" in shown["estimate-test"] or "not known yet" in shown["estimate-test"]
    assert len(json.loads(shown["scores-test"])) == 4
    rows = json.loads(shown["runs-test"])
    assert [(row["state"], row["step"]) for row in rows] == [("completed", "16 of 16")] * 4
    assert all(row["bits per byte"] > 0 for row in rows)
    (table,) = [artifact for artifact in artifacts_of(client, run) if artifact.key == "runs-test"]
    assert table.description == "4 of 4 runs completed. One look is taken, when all runs are completed."
    assert table.updated > table.created, "one artifact, brought up to date"


def test_again_it_finds_all_complete_and_says_the_same(stack, client, parameters, root):
    before = Root(root).names("verdicts")
    run, children = compare(stack, client, parameters, root, name="test")
    assert run.state.is_completed() and children == {}
    assert Root(root).names("verdicts") == before


@pytest.mark.slow
def test_rounds_go_on_from_what_is_complete_until_they_are_used_up(stack, client, parameters, root):
    compare(stack, client, parameters, root)  # complete already, unless this test runs without the first one
    stop = {"max_replicates": 3, "first_look": 2, "margin": 1e-6}
    run, children = compare(stack, client, parameters, root, replicates=None, stop=stop)
    assert run.state.is_completed()
    assert children == {"prepare": 1, "train": 2}
    store = Root(root)
    registered = json.loads(store.path("verdicts/test/registered.json").read_text())
    first, second = registered["plans"]
    assert (first["stop"], second["stop"]["max_replicates"]) == (None, 3)
    assert (second["runs_before"], second["looks_before"]) == (4, 1)
    assert [len(look["runs"]) for look in registered["looks"]] == [4, 4, 6]
    newest = max(store.names("verdicts"), key=lambda name: store.manifest(name).created)
    (pair,) = json.loads((store.open(newest).path / "verdict.json").read_text())["comparisons"]
    assert pair["decision"] in ("undecided", "better", "worse")


@pytest.mark.slow  # tests/verdict/test_comparison.py refuses them without a server
def test_unmatched_arms_fail_with_a_sentence_and_spend_nothing(stack, client, parameters, root):
    arms = [ARM, {**RANDOM, "order": "shuffled"}]
    run, children = compare(stack, client, parameters, root, arms=arms, name="unmatched")
    assert run.state.is_failed() and children == {}
    assert "arm.order: best-first (top16) against shuffled (rand16)" in run.state.message
