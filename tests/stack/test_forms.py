"""The server refuses what a form's schema refuses, with a reason, and gives out whatever it took."""

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prefect.client.orchestration import SyncPrefectClient
from prefect.utilities.schema_tools import validate

from infra.local.stack import Stack
from tests.forms import FORMS, Form, values

pytestmark = pytest.mark.stack
FAR = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[httpx.Client]:
    name, _, word = stack.password.partition(":")
    with httpx.Client(base_url=stack.api, auth=(name, word), timeout=30) as client:
        yield client


@st.composite
def tries(draw: st.DrawFn) -> tuple[Form, dict]:
    """A form, and its parameters with one field at or beyond a bound."""
    form = draw(st.sampled_from(FORMS))
    path, schema = draw(st.sampled_from(form.places()))
    return form, form.filled(path, draw(values(schema)))


by_name = {form.flow.fn.__name__: form for form in FORMS}


@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_no_value_makes_the_server_fail(api: httpx.Client, client: SyncPrefectClient, examples: int) -> None:
    ids = {form.deployment: client.read_deployment_by_name(form.deployment).id for form in FORMS}
    taken = []

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(tries())
    @example((by_name["experiment"], {"seed": 2**64}))
    @example((by_name["experiment"], {"seed": -1}))
    @example((by_name["experiment"], {"seed": 2**63 - 1}))
    @example((by_name["experiment"], {"root": ""}))
    @example((by_name["experiment"], {"no_such_field": 2**64}))
    @example((by_name["train_on_subset"], {"train": {"tokens": 2**64}}))
    @example((by_name["compare"], {"data": {"score": {"a\x00": 1.0}}}))
    def no_failure(tried: tuple[Form, dict]) -> None:
        form, parameters = tried
        body = json.dumps({"parameters": parameters, "state": FAR})
        url = f"/deployments/{ids[form.deployment]}/create_flow_run"
        made = next(
            reply for _ in range(20) if (reply := api.post(url, content=body)).status_code != 503
        )  # SQLite is busy
        if validate(parameters, form.schema):
            assert 400 <= made.status_code < 500, (parameters, made.text)
            assert "Validation failed" in made.text
            return
        assert made.status_code == 201, (parameters, made.text)
        taken.append(made.json()["id"])
        assert {**made.json()["parameters"], **parameters} == made.json()["parameters"]

    try:
        no_failure()
        found = api.post("/flow_runs/filter", json={"flow_runs": {"id": {"any_": taken}}})
        assert found.status_code == 200 and {run["id"] for run in found.json()} == set(taken)
    finally:
        for run in taken:
            api.delete(f"/flow_runs/{run}")
