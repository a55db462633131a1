"""The local stack itself: idempotent, says a taken port, and nothing is left of a demo that was stopped."""

import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import Scheduled

from flows.alive import why_waiting
from infra.doctor import examine
from infra.local import access, deploy, lifecycle, processes
from infra.local import stack as stacks
from infra.local.deploy import PROJECT

pytestmark = pytest.mark.stack


def test_a_taken_port_is_said_and_the_next_free_one_used(stack, said, taken):
    assert any(line.startswith(f"Port {taken} is in use: the Prefect server takes ") for line in said)
    assert stack.server_port != taken


def test_up_again_changes_nothing(stack, client):
    said = []
    before = {one.id for one in client.read_deployments()}
    again = lifecycle.up(stack.home, said.append)
    assert (again.pids, again.server_port) == (stack.pids, stack.server_port)
    assert said == [f"The stack is running already: {stack.ui}"]
    assert {one.id for one in client.read_deployments()} == before


@pytest.mark.slow  # it deploys
def test_deploying_again_makes_nothing_twice(stack, client):
    names = lambda: sorted(f"{one.flow_id}/{one.name}" for one in client.read_deployments())  # noqa: E731
    before = names()
    deploy.create_pools(stack.environment)
    deploy.deploy(stacks.full_environment(stack))
    assert names() == before
    assert {pool.name: pool.concurrency_limit for pool in client.read_work_pools()} == {"cpu": None, "gpu": None}


def test_the_server_listens_on_loopback_only(stack):
    import psutil

    listening = [c for c in psutil.Process(stack.pids["server"]).net_connections("tcp") if c.status == "LISTEN"]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_doctor_finds_the_stack_well(stack, monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    unaware = {finding.what: finding for finding in examine(stack.home, str(tmp_path))}
    assert unaware["this shell"].remedy == f". {shlex.quote(str(stack.home / 'env'))}"
    sourced = subprocess.run(["sh", "-c", '. "$0" && env', str(stack.home / "env")], capture_output=True, text=True)
    assert (
        f"FABRATING_HOME={stack.home}" in sourced.stdout.splitlines()
        and stack.environment[access.URL] in sourced.stdout
    )
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    findings = {finding.what: finding for finding in examine(stack.home, str(tmp_path))}
    expected = {*stack.pids, "root", "data", "credentials", "Prefect", "pool cpu", "pool gpu"}
    assert {name: findings[name].state for name in expected} == dict.fromkeys(expected, "good")
    assert "this shell" not in findings and "local-gpu" in findings["pool gpu"].found


def test_the_gpu_pool_can_be_left_to_other_hosts(stack):
    pid, said = stack.pids["worker-gpu"], []
    without = lifecycle.up(stack.home, said.append, gpu=False)
    assert said[1:] == ["Stopping the worker for the work pool gpu"]
    assert not processes.belongs(pid, stack.mark) and lifecycle.running(without)
    assert "worker-gpu" not in {finding.what for finding in examine(stack.home)}
    said.clear()
    stack.pids = lifecycle.up(stack.home, said.append).pids
    assert said[1:] == ["Starting a worker for the work pool gpu"]


def test_a_limit_that_was_raised_by_hand_outlives_a_deployment(stack, client):
    client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=4))
    deploy.create_pools(stack.environment)
    assert client.read_work_pool("gpu").concurrency_limit == 4
    client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=None))


def test_what_dotenv_says_reaches_the_workers(stack, tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("WANDB_API_KEY=from-file\nHF_TOKEN=from-file\nPREFECT_API_URL=http://elsewhere\n")
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    monkeypatch.setenv("HF_TOKEN", "from-shell")
    found = stacks.full_environment(stack)
    assert (found["WANDB_API_KEY"], found["HF_TOKEN"]) == ("from-file", "from-shell")
    assert found["PREFECT_API_URL"] == stack.api


def test_a_worker_that_died_is_started_again_by_the_stack_itself(stack, monkeypatch):
    pid = stack.pids["worker-gpu"]
    monkeypatch.setenv(processes.MARK, "another stack's")
    os.kill(pid, signal.SIGKILL)
    while processes.belongs(pid, stack.mark):
        time.sleep(0.1)
    lifecycle.keep_workers(stack.home, print)  # not by a process of another one
    assert stacks.load(stack.home).pids["worker-gpu"] == pid
    monkeypatch.setenv(processes.MARK, stack.mark)
    lifecycle.keep_workers(stack.home, print)
    stack.pids.update(stacks.load(stack.home).pids)
    assert stack.pids["worker-gpu"] != pid and stack.alive("worker-gpu")


@pytest.mark.slow  # it deploys
def test_a_pool_that_was_deleted_or_paused_is_said_and_mended(stack, client, monkeypatch):
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    pool = lambda: next(one for one in examine(stack.home) if one.what == "pool gpu")  # noqa: E731
    train = client.read_deployment_by_name("train/train")
    arm, far = f"top16-{time.time_ns()}", Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    run = client.create_flow_run_from_deployment(train.id, parameters={"arm": arm}, state=far)

    client.update_work_pool("gpu", WorkPoolUpdate(is_paused=True))
    assert (pool().state, pool().remedy) == ("bad", "prefect work-pool resume gpu")
    assert (
        why_waiting(client, client.read_flow_run(run.id)) == "the work pool gpu is paused: prefect work-pool resume gpu"
    )

    client.delete_work_pool("gpu")  # its worker makes one anew that has nothing of ours
    assert pool().state == "bad"
    assert "was deleted: `fabrating up`" in why_waiting(client, client.read_flow_run(run.id))
    said = []
    stack.pids.update(lifecycle.up(stack.home, said.append).pids)
    assert said[1].startswith("The work pool gpu is ") and said[1].endswith(": mending it")
    assert deploy.wrong_pools(stack.environment) == {}
    assert client.read_deployment_by_name("train/train").work_pool_name == "gpu"
    (again,) = [one for one in client.read_flow_runs(limit=200) if one.parameters.get("arm") == arm]
    assert again.id != run.id and again.work_pool_name == "gpu" and again.state.is_scheduled()
    client.delete_flow_run(again.id)
    said.clear()
    lifecycle.up(stack.home, said.append)
    assert len(said) == 1


@pytest.mark.slow
def test_ctrl_c_in_a_demo_leaves_no_process(tmp_path):
    home = tmp_path / "home"
    demo = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "demo", "--home", str(home)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        seen = []
        for line in demo.stdout:
            seen.append(line)
            if ": Running" in line:
                break
        assert ": Running" in seen[-1], "".join(seen)
        mark = stacks.load(home).mark
        assert len(processes.members(mark)) >= 3, "".join(seen)
        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(timeout=120) == 130, "".join(seen) + rest
        assert "Stopping all processes of the demo" in rest
        assert processes.members(mark) == []
    finally:
        if demo.poll() is None:
            demo.kill()
        lifecycle.down(home, print)
