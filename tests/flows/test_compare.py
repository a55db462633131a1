"""The deployed comparisons are matched ones."""

from pathlib import Path

import yaml

from flows import compare
from tasks.spec import Arm, Experiment, Training
from tasks.verdict.matched import differences

DEPLOYMENTS = yaml.safe_load((Path(compare.__file__).parents[1] / "deployments" / "prefect.yaml").read_text())[
    "deployments"
]


def test_deployed_comparisons_have_arms_that_differ_in_what_they_say_alone():
    deployed = [d["parameters"] for d in DEPLOYMENTS if d["entrypoint"] == "flows/compare.py:compare"]
    assert len(deployed) >= 2
    for parameters in deployed:
        training = Training(**parameters["train"])
        arms = [Arm(**arm) for arm in parameters["arms"]]
        assert len({(arm.select, arm.order) for arm in arms}) == len(arms)
        assert len(parameters["seeds"]) >= 2
        found = differences({arm.name: Experiment(arm=arm, training=training) for arm in arms})
        assert set(found) == set(parameters.get("allow", []))
