"""A run of a deployment is what the deployment says, with what was given on top of it, and stays so."""

import importlib
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prefect.states import Cancelling, Scheduled

from flows.deployed import completed, filled
from infra.local import deploy
from tasks.verdict.form import ComparisonForm
from tests.stack.conftest import DATA, TRAIN

pytestmark = pytest.mark.stack
GIVEN = {
    "arm": {"share": 0.3},
    "data": {"holdout_documents": 7},
    "train": {"depth": 3},
    "host": {"address": "example.org"},
}
NESTED = [
    (deployment, parameter)
    for deployment in yaml.safe_load((deploy.DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    for parameter in deployment.get("parameters", {})
    if parameter in GIVEN
]


def flow_of(deployment):
    path, name = deployment["entrypoint"].split(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def start(client, name, parameters, delay=timedelta(days=1)):
    """A run that no worker takes before the test is over."""
    found = client.read_deployment_by_name(name)
    state = Scheduled(scheduled_time=datetime.now(UTC) + delay)
    return client.create_flow_run_from_deployment(found.id, parameters=parameters, state=state), found


@pytest.mark.parametrize(
    ("deployment", "parameter"), NESTED, ids=lambda value: value if isinstance(value, str) else value["name"]
)
def test_what_is_not_given_stays_as_deployed(client, deployment, parameter):
    flow = flow_of(deployment)
    run, found = start(client, f"{flow.name}/{deployment['name']}", {parameter: GIVEN[parameter]})
    try:
        given = flow.validate_parameters(run.parameters)
        whole = completed(client, run.id, found.id, given)
        expected = type(given[parameter]).model_validate({**found.parameters[parameter], **GIVEN[parameter]})
        assert whole[parameter] == expected
        stored = client.read_flow_run(run.id).parameters
        assert stored[parameter] == expected.model_dump(mode="json")
        assert flow.validate_parameters(stored) == whole
    finally:
        client.delete_flow_run(run.id)


def test_lists_and_scores_are_replaced_and_a_later_deployment_changes_no_rerun(client):
    flow = flow_of({"entrypoint": "flows/experiment.py:experiment"})
    run, found = start(client, "experiment/rand16", {"data": {"score": {"only": 1.0}}, "arm": {"share": 0.3}})
    before = client.read_deployment(found.id).parameters
    try:
        whole = completed(client, run.id, found.id, flow.validate_parameters(run.parameters))
        assert whole["data"].score == {"only": 1.0}
        client.request("PATCH", f"/deployments/{found.id}", json={"parameters": {**before, "arm": {"name": "other"}}})
        again = client.read_flow_run(run.id).parameters
        assert completed(client, run.id, found.id, flow.validate_parameters(again)) == whole
    finally:
        client.request("PATCH", f"/deployments/{found.id}", json={"parameters": before})
        client.delete_flow_run(run.id)


def test_a_rerun_of_a_form_is_what_its_first_attempt_was(client):
    flow = flow_of({"entrypoint": "flows/compare.py:compare"})
    run, found = start(client, "compare/file", {"train": {"depth": 3}})
    try:
        whole = completed(client, run.id, found.id, flow.validate_parameters(run.parameters), ComparisonForm)
        assert whole["train"].recipe == "quiet", "as the form completes it, not as a training alone does"
        again = flow.validate_parameters(client.read_flow_run(run.id).parameters)
        assert completed(client, run.id, found.id, again, ComparisonForm) == whole
        assert filled(ComparisonForm, again) == filled(ComparisonForm, {"train": {"depth": 3}})
    finally:
        client.delete_flow_run(run.id)


def test_a_random_arm_with_one_field_given_is_still_random(client, stack, tmp_path):
    given = {"arm": {"share": 0.3}, "data": {**DATA, "source": stack.sample}, "train": TRAIN, "root": str(tmp_path)}
    run, _ = start(client, "experiment/rand16", given, timedelta())
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        now = client.read_flow_run(run.id)
        if now.parameters["arm"].get("select"):
            break
        time.sleep(0.5)
    time.sleep(3)  # by then its first step has begun, with these parameters
    now = client.read_flow_run(run.id)
    client.set_flow_run_state(run.id, Cancelling(), force=True)
    assert now.name == "rand16-d1-s1"
    assert now.parameters["arm"]["select"] == "random" and now.parameters["arm"]["share"] == 0.3
