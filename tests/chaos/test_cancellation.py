"""What a person cancels ends with a checkpoint and without a process, also when its worker is gone, and stays cancelled."""

import contextlib
import json
import os
import signal
import time

import pytest
from prefect.states import Cancelled, Cancelling

from flows.maintenance import reaper
from infra.local import lifecycle
from infra.local.access import connected
from tests.chaos.harness.server import Server
from tests.stack.conftest import TRAIN, children, wait

pytestmark = [pytest.mark.stack, pytest.mark.slow]


LONG = {
    "arm": {"name": "all", "select": "all", "order": "shuffled"},
    "train": TRAIN | {"depth": 6, "save_every": 5, "eval_every": 1000},
}


def test_a_cancelled_experiment_ends_although_its_worker_was_killed(stack, client, parameters, tmp_path):
    deployment = client.read_deployment_by_name("experiment/top16")
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters | LONG)
    checkpoints = lambda: sorted(tmp_path.glob("root/runs/*/checkpoints/*/manifest.json"))  # noqa: E731
    wait(checkpoints, 300)
    train = children(client, client.read_flow_run(run.id))["train"]
    os.kill(stack.pids["worker-gpu"], signal.SIGKILL)

    client.set_flow_run_state(run.id, Cancelling(), force=True)
    began = time.monotonic()
    server = Server(stack.api, stack.mark, stack.password)
    wait(lambda: not server.processes_of(str(train.id)) and not server.processes_of(str(run.id)), 120)
    took = time.monotonic() - began
    wait(lambda: client.read_flow_run(train.id).state.is_final() and client.read_flow_run(run.id).state.is_final(), 60)
    assert client.read_flow_run(train.id).state.is_cancelled()
    assert client.read_flow_run(run.id).state.is_cancelled()
    assert took < 60 or os.getloadavg()[0] > 4, f"it took {took:.0f} s"

    entry = json.loads(next(tmp_path.glob("root/runs/*/run.json")).read_text())
    assert entry["attempts"][-1]["state"] == "interrupted"
    stack.pids = lifecycle.up(stack.home, print).pids


def test_a_cancelled_training_is_not_set_going_again(stack, client, parameters, tmp_path):
    deployment = client.read_deployment_by_name("experiment/top16")
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters | LONG)
    wait(lambda: sorted(tmp_path.glob("root/runs/*/checkpoints/*/manifest.json")), 300)
    train = children(client, client.read_flow_run(run.id))["train"]
    state = lambda: client.read_flow_run(train.id).state  # noqa: E731
    try:
        client.set_flow_run_state(train.id, Cancelling(), force=True)
        wait(lambda: state().is_cancelled() and client.read_flow_run(run.id).state.is_final(), 120)
        with connected(stack.environment):
            outcome = reaper(delay_seconds=0)
        assert client.read_flow_run(run.id).name not in outcome["set going"]
        assert state().is_cancelled() and client.read_flow_run(run.id).state.is_failed()
    finally:
        ended = lambda one: client.read_flow_run(one).state.is_final()  # noqa: E731
        for one in (run.id, train.id):
            if not ended(one):
                client.set_flow_run_state(one, Cancelling(), force=True)
        with contextlib.suppress(TimeoutError):  # nobody answers for a run that no process has taken up
            wait(lambda: ended(run.id) and ended(train.id), 60)
        for one in (run.id, train.id):
            if not ended(one):
                client.set_flow_run_state(one, Cancelled(), force=True)
