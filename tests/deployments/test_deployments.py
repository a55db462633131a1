"""What `deployments/` says: arms differ in their selection alone, everything is described, tagged and valid."""

import importlib
import json
from itertools import combinations

import pytest
import yaml

from infra.local import deploy
from tasks.spec import Arm, Pool, Training

DEPLOYMENTS = yaml.safe_load((deploy.DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
ARMS = {d["name"]: d["parameters"] for d in DEPLOYMENTS if "arm" in d["tags"]}
SELECTION = {"name", "select", "share", "temperature"}


def label(deployment):
    return f"{deployment['entrypoint'].rsplit(':', 1)[1]}/{deployment['name']}"


@pytest.mark.parametrize(("one", "other"), list(combinations(ARMS, 2)))
def test_arms_differ_in_their_selection_alone(one, other):
    first, second = ARMS[one], ARMS[other]
    assert first.keys() == second.keys()
    assert {key for key in first if first[key] != second[key]} == {"arm"}
    a, b = Arm(**first["arm"]).model_dump(), Arm(**second["arm"]).model_dump()
    assert {key for key in a if a[key] != b[key]} <= SELECTION


def test_top_and_random_take_the_same_share():
    assert ARMS["top16"]["arm"]["share"] == ARMS["rand16"]["arm"]["share"] == 0.165
    assert ARMS["top16"]["arm"]["select"] == "top"
    assert ARMS["rand16"]["arm"]["select"] == "random"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=label)
def test_deployments_are_described_tagged_and_on_a_pool_of_ours(deployment):
    assert len(deployment["description"]) > 30
    assert {"fabrating", "maintenance"} & set(deployment["tags"])  # the reaper does not look after itself
    pool, queue = deployment["work_pool"]["name"], deployment["work_pool"].get("work_queue_name", "default")
    assert pool in deploy.POOLS
    assert queue == "default" or queue in deploy.QUEUES[pool]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=label)
def test_parameters_are_valid_and_known_to_the_flow(deployment):
    path, name = deployment["entrypoint"].split(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    given = deployment.get("parameters", {})
    assert set(given) <= set(flow.parameters.properties)
    kinds = {"arm": Arm, "data": Pool, "train": Training}
    for key, kind in kinds.items():
        if key in given:
            kind.model_validate(given[key])


@pytest.mark.parametrize("entrypoint", sorted({d["entrypoint"] for d in DEPLOYMENTS}))
def test_every_parameter_of_a_flow_is_described(entrypoint):
    path, name = entrypoint.split(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert flow.description
    for parameter, schema in flow.parameters.properties.items():
        assert schema.get("description"), parameter


def test_pools_keep_runs_apart_from_their_worker():
    template = json.loads((deploy.DEPLOYMENTS / "pool.json").read_text())
    variables = template["variables"]["properties"]
    assert variables["stream_output"]["default"] is False
    assert variables["working_dir"]["default"] == "."  # where the worker was started, on whatever host
    assert set(template["job_configuration"]) == set(variables)
