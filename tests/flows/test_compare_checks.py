"""What `compare` refuses before anything is spent, and that the comparisons that are deployed are matched ones."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from flows import compare
from tasks.errors import InputError
from tasks.records import code, ledger
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.root import Root
from tasks.verdict.matched import differences

DEPLOYMENTS = yaml.safe_load((Path(compare.__file__).parents[1] / "deployments" / "prefect.yaml").read_text())[
    "deployments"
]
TOP, RANDOM = Arm(name="top"), Arm(name="random", select="random")


def test_deployed_comparisons_have_arms_that_differ_in_what_they_say_alone():
    found = [d["parameters"] for d in DEPLOYMENTS if d["entrypoint"] == "flows/compare.py:compare"]
    assert len(found) >= 2
    for parameters in found:
        training = Training(**parameters["train"])
        arms = [Arm(**arm) for arm in parameters["arms"]]
        assert len({(arm.select, arm.order) for arm in arms}) == len(arms)
        assert len(parameters["seeds"]) >= 2
        for a, b in pairwise(arms):
            found_between = differences(Experiment(arm=a, training=training), Experiment(arm=b, training=training))
            assert set(found_between) == set(parameters.get("allow", []))


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
        compare._require_matched(arms, seeds, Pool(), Training(), [])


def test_a_factor_that_is_meant_is_allowed():
    arms = [TOP, Arm(name="worst-first", order="worst-first")]
    compare._require_matched(arms, [1, 2], Pool(), Training(), ["arm.order"])


def test_runs_of_other_code_are_not_mixed_in_unless_allowed(tmp_path, monkeypatch):
    root = Root(tmp_path)
    run = ledger.open_entry(root, Experiment(arm=TOP), "pool", "top-arm").run
    ledger.finish(root, run, "completed", facts={})
    root.build(f"runs/{run}/result", lambda work: None, spec={})
    compare._require_same_code(root, [run, "not-yet"], [])
    monkeypatch.setattr(code, "commit", lambda: "0123456789")
    compare._require_same_code(root, [run, "not-yet"], [])  # a commit that leaves the output as it was
    monkeypatch.setattr(code, "TRAINING_VERSION", code.TRAINING_VERSION + 1)
    message = f"{run} was trained by commit .*, the missing runs would be by commit 0123456789 .*allow: commit"
    with pytest.raises(InputError, match=message):
        compare._require_same_code(root, [run, "not-yet"], [])
    compare._require_same_code(root, [run, "not-yet"], ["commit"])
