"""The deployed comparisons are matched ones, and their flow asks for what the form asks for."""

from pathlib import Path

import pytest
import yaml

from flows.compare import compare
from infra.local.launch import DEPLOYMENT
from tasks.spec import Experiment
from tasks.verdict.form import ComparisonForm
from tasks.verdict.matched import differences

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "deployments" / "prefect.yaml").read_text())["deployments"]
COMPARISONS = [d for d in DEPLOYMENTS if d["entrypoint"] == "flows/compare.py:compare"]


@pytest.mark.parametrize("deployment", COMPARISONS, ids=lambda deployment: deployment["name"])
def test_deployed_comparisons_are_accepted_and_differ_in_what_they_say_alone(deployment):
    given = deployment.get("parameters", {})
    spec = ComparisonForm(**given).spec()
    spec.require_matched()
    assert len(spec.seeds) >= 2
    found = differences({arm.name: Experiment(arm=arm, training=spec.training) for arm in spec.arms})
    assert set(found) == set(spec.allow)
    assert given or f"compare/{deployment['name']}" == DEPLOYMENT


def test_the_flow_has_the_fields_of_the_form_with_what_they_mean():
    asked = compare.parameters.model_dump()["properties"]
    known = ComparisonForm.model_json_schema()["properties"]
    assert {name: each["description"] for name, each in asked.items()} == {
        name: each["description"] for name, each in known.items()
    }
    assert asked["replicates"]["anyOf"] == known["replicates"]["anyOf"]
