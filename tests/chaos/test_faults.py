"""The short form of `make chaos`: an experiment whose processes are killed ends by itself with what an undisturbed one leaves."""

import os
import signal

import pytest

from flows.maintenance import reaper
from infra.local.access import connected
from tests.chaos.harness.arm import ArmRun
from tests.chaos.harness.server import Server

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture
def server(stack):
    return Server(stack.api, stack.mark, stack.password)


def kill(found):
    assert found
    for process in found:
        os.kill(process.pid, signal.SIGKILL)


def test_a_killed_preparation_and_a_killed_trainer_change_nothing(stack, server, tmp_path):
    undisturbed = ArmRun(server, tmp_path / "undisturbed", stack.sample)
    undisturbed.start()
    assert undisturbed.finish()["type"] == "COMPLETED"
    steps = undisturbed.step()

    run = ArmRun(server, tmp_path / "disturbed", stack.sample)
    run.start()
    kill(server.processes_of(run.running("prepare")))
    run.wait("the experiment to say so", lambda: (run.state or {}).get("type") in ("FAILED", "SCHEDULED"))
    with connected(stack.environment):
        reaper(delay_seconds=0)
    train = run.running("train")
    run.steps_reached(steps // 2)
    kill(server.trainer(train))
    assert run.finish()["type"] == "COMPLETED"

    assert run.left() == undisturbed.left()
    told = [change for change in run.changes() if change.run == run.id]
    assert [change.type for change in told].count(
        "RUNNING"
    ) == 2  # one rerun of the experiment: the task went on by itself
    assert run.child("train") == train
