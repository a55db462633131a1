"""`compare/demo` on the running stack: arms prepared and trained as its children, cancelled, judged, shown, and not made twice."""

import json
import os
import time
from uuid import UUID

import pytest
from prefect.states import Cancelling

from tasks.records import ledger
from tasks.store.root import Root
from tests.chaos.harness.server import Server
from tests.stack.conftest import ARM, artifacts_of, below, run_deployment, runs_below, wait

pytestmark = pytest.mark.stack

RANDOM = {**ARM, "name": "rand16", "select": "random"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One root for all tests of this file: what the first one makes, the others find."""
    return tmp_path_factory.mktemp("root")


def asked(parameters, root, **changes):
    """Parameters of `compare/demo`."""
    given = {
        "data": parameters["data"],
        "train": {**parameters["train"], "tokens": 32_768},
        "root": str(root),
        "seeds": None,
        "replicates": 2,
        "name": "test",
    }
    return given | {"arms": [ARM, RANDOM], **changes}


def compare(stack, client, parameters, root, **changes):
    """A run of `compare/demo` that has ended, and its children by flow."""
    run = run_deployment(client, "compare/demo", asked(parameters, root, **changes), minutes=9)
    return run, below(client, run)


def test_a_run_that_is_cancelled_ends_alone_and_all_end_with_their_comparison(stack, client, parameters, root):
    """What it prepares, and the process that stays, serve the next test."""
    long = {**parameters["train"], "depth": 6, "batch_tokens": 64, "tokens": 131_072}
    deployment = client.read_deployment_by_name("compare/demo")
    given = asked(parameters, root, train=long, name="long")
    whole = client.create_flow_run_from_deployment(deployment.id, parameters=given)
    state = lambda run: client.read_flow_run(run).state  # noqa: E731

    def at_work(but=None):
        return next((each for each in ledger.entries(Root(root)) if each.step and each.run != but), None)

    one = wait(at_work, 240)
    child = UUID(one.last.flow_run)
    client.set_flow_run_state(child, Cancelling(), force=True)
    other = wait(lambda: at_work(but=one.run), 60)
    wait(lambda: state(child).is_cancelled(), 60)

    client.set_flow_run_state(whole.id, Cancelling(), force=True)
    began = time.monotonic()
    children = runs_below(client, whole)
    wait(lambda: all(state(each.id).is_final() for each in (whole, *children)), 120)
    took = time.monotonic() - began
    print(f"all were cancelled in {took:.0f} s")
    assert took < 30 or os.getloadavg()[0] > 4, f"{took:.0f} s"
    assert state(whole.id).is_cancelled()
    ends = [state(each.id).name for each in children]
    assert len(ends) == 5 and sorted(ends) == [*["Cancelled"] * 4, "Completed"], "all but the preparation"
    server = Server(stack.api, stack.mark, stack.password)
    assert not any(server.processes_of(str(each.id)) for each in (whole, *children))
    entries = {each.run: each.state for each in ledger.entries(Root(root))}
    assert set(entries.values()) <= {"cancelled", "interrupted"} and {one.run, other.run} <= set(entries)
    assert all(list(root.glob(f"runs/{run}/checkpoints/*/manifest.json")) for run in (one.run, other.run))


def test_two_arms_with_two_replicates_end_in_a_verdict_and_a_report(stack, client, parameters, root):
    run, children = compare(stack, client, parameters, root)
    assert run.state.is_completed()
    assert children == {"train": 4}
    trainers = {json.loads(lock.read_text())["pid"] for lock in root.glob("runs/*/.lock")}
    assert len(trainers) == 1, "one process trained all, with those that were cancelled"
    store = Root(root)
    drawn = [name for name in store.names("arms") if name.endswith("/text")]
    assert len(drawn) == 3, "a draw of the random arm for each replicate"
    (name,) = store.names("verdicts")
    verdict = json.loads((store.open(name).path / "verdict.json").read_text())
    (pair,) = verdict["comparisons"]
    assert (pair["a"], pair["b"], pair["seeds"]) == ("top16", "rand16", 2)
    assert pair["degrees_of_freedom"] >= 1 and pair["warnings"][0] == "two seeds"
    assert pair["low"] <= pair["difference"] <= pair["high"]
    judged = [each for arm in verdict["arms"] for each in arm["runs"]]
    asked = [child.name for child in sorted(runs_below(client, run), key=lambda child: child.created)]
    first, second = zip(*(each["runs"] for each in verdict["arms"]), strict=True)
    assert asked == [*first, *second], "a child is called as the run that it makes; one of each arm, then the next"
    assert len({store.find(f"runs/{each}/result").facts["tokens"] for each in judged}) == 1
    report = (store.path(name) / "report.html").read_text()
    assert "took, rand16 did not" in report and "What the models write" in report
    shown = {artifact.key: artifact.data for artifact in artifacts_of(client, run)}
    assert pair["sentence"].split(" bits per byte")[0] in shown["verdict-test"]
    assert "2 seeds an arm" in shown["estimate-test"] or "not known yet" in shown["estimate-test"]
    assert len(json.loads(shown["scores-test"])) == 4
    rows = json.loads(shown["runs-test"])
    assert [(row["state"], row["step"]) for row in rows] == [("completed", "16 of 16")] * 4
    assert all(row["bits per byte"] > 0 for row in rows)
    assert {row["run"] for row in rows} == set(judged) and all(list(row)[-1] == "page" for row in rows)
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
