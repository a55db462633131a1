"""A run of a deployment that gives a part of a nested parameter."""

import re

import pytest
from prefect.states import Cancelling

from tests.stack.conftest import wait

pytestmark = pytest.mark.stack

PARTIAL = {
    "demo": ({"train": {"eval_every": 50}}, "demo-d2-s1"),
    "rand16": ({"arm": {"share": 0.3}}, "rand16-d20-s1"),
}


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Nothing wrong in silence: the fields beside a given one are the flow's defaults, not the deployment's",
)
def test_what_is_not_given_stays_as_the_deployment_has_it(client, tmp_path):
    made = {}
    for name, (given, _) in PARTIAL.items():
        deployment = client.read_deployment_by_name(f"experiment/{name}")
        made[name] = client.create_flow_run_from_deployment(
            deployment.id, parameters={**given, "root": str(tmp_path / name)}
        ).id

    def outcome(name):
        """The run's name once its parameters were taken, or how they were refused."""
        run = client.read_flow_run(made[name])
        if re.search(r"-d\d+-s\d+$", run.name):
            return run.name
        (parameter,) = PARTIAL[name][0]
        return "refused" if run.state.is_failed() and parameter in (run.state.message or "") else None

    try:
        found = {name: wait(lambda name=name: outcome(name), 120) for name in PARTIAL}
    finally:
        for run in made.values():
            if not client.read_flow_run(run).state.is_final():
                client.set_flow_run_state(run, Cancelling(), force=True)
            wait(lambda run=run: client.read_flow_run(run).state.is_final(), 60)
    assert found == {name: named if found[name] != "refused" else "refused" for name, (_, named) in PARTIAL.items()}
