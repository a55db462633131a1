"""The deployed comparisons are matched ones."""

from pathlib import Path

import pytest
import yaml

from flows import compare
from tasks.errors import InputError
from tasks.records.stopping import StoppingRule
from tasks.spec import DRAWS, Arm, Experiment, Pool, Training
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.matched import differences

DEPLOYMENTS = yaml.safe_load((Path(compare.__file__).parents[1] / "deployments" / "prefect.yaml").read_text())[
    "deployments"
]
COMPARISONS = [d["parameters"] for d in DEPLOYMENTS if d["entrypoint"] == "flows/compare.py:compare"]


@pytest.mark.parametrize("parameters", COMPARISONS, ids=lambda parameters: parameters["name"])
def test_deployed_comparisons_are_accepted_and_differ_in_what_they_say_alone(parameters):
    given = {name: parameters.get(name) for name in ("seeds", "replicates", "stop")}
    stop = StoppingRule(**given["stop"]) if given["stop"] else None
    seeds = compare._seeds(given["seeds"], given["replicates"], stop, compare.REDRAW)
    assert len(seeds) >= 2
    arms = [Arm(**arm) for arm in parameters["arms"]]
    spec = ComparisonSpec(
        parameters["name"],
        Pool(**parameters["data"]),
        arms,
        seeds,
        Training(**parameters["train"]),
        allow=parameters.get("allow", []),
        control=parameters.get("control"),
        redraw=None if given["seeds"] else DRAWS,
        stop=stop,
    )
    spec.require_matched()
    found = differences({arm.name: Experiment(arm=arm, training=spec.training) for arm in arms})
    assert set(found) == set(spec.allow)


@pytest.mark.parametrize("given", [{"seeds": [1, 2]}, {"replicates": 3}])
def test_one_thing_alone_says_how_many_runs_an_arm_gets(given):
    assert list(compare._seeds(None, None, None, compare.REDRAW)) == [1, 2, 3, 4]
    with pytest.raises(InputError, match="seeds and redraw are both given"):
        compare._seeds([1, 2], None, None, ["init"])
    rule = StoppingRule(max_replicates=8)
    with pytest.raises(InputError, match=f"{next(iter(given))} and stop all say how many runs an arm gets: give one"):
        compare._seeds(given.get("seeds"), given.get("replicates"), rule, compare.REDRAW)
