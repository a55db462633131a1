"""A cancelled experiment ends with a checkpoint and without a process, also when its worker is gone by then."""

import json
import os
import signal
import time

import pytest
from prefect.states import Cancelling

from infra.local import stack as stacks
from tests.chaos.harness.server import Server
from tests.stack.conftest import TRAIN, children

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def test_a_cancelled_experiment_ends_although_its_worker_was_killed(stack, client, parameters, tmp_path):
    long = {
        "arm": {"name": "all", "select": "all", "order": "shuffled"},
        "train": TRAIN | {"depth": 6, "save_every": 5, "eval_every": 1000},
    }
    deployment = client.read_deployment_by_name("experiment/top16")
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters | long)
    checkpoints = lambda: sorted(tmp_path.glob("root/runs/*/checkpoints/*/manifest.json"))  # noqa: E731
    wait(checkpoints, 300)
    train = children(client, client.read_flow_run(run.id))["train"]
    os.kill(stack.pids["worker-gpu"], signal.SIGKILL)

    client.set_flow_run_state(run.id, Cancelling(), force=True)
    began = time.monotonic()
    server = Server(stack.api, stack.mark)
    wait(lambda: not server.processes_of(str(train.id)) and not server.processes_of(str(run.id)), 120)
    took = time.monotonic() - began
    wait(lambda: client.read_flow_run(train.id).state.is_final() and client.read_flow_run(run.id).state.is_final(), 60)
    assert client.read_flow_run(train.id).state.is_cancelled()
    assert client.read_flow_run(run.id).state.is_cancelled()
    assert took < 60 or os.getloadavg()[0] > 4, f"it took {took:.0f} s"

    entry = json.loads(next(tmp_path.glob("root/runs/*/run.json")).read_text())
    assert entry["attempts"][-1]["state"] == "interrupted"
    stack.pids = stacks.up(stack.home, print).pids
