"""The maintenance service on the running stack: what it sets going again, cancels or declares dead, and what it leaves alone."""

import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from prefect import task
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.states import Cancelled, Cancelling, Crashed, Failed, Pending, Running, Scheduled

from flows import alive, maintenance
from flows.alive import Watch
from flows.maintenance import (
    FIRST_DELAY,
    LONGEST_DELAY,
    cancel_left_behind,
    due,
    failed_runs,
    is_permanent,
    put_back,
    reaper,
)
from infra.local import access, deploy, lifecycle, ports, processes
from infra.local import stack as stacks
from infra.local.access import connected
from infra.local.maintenance import look
from tasks.errors import InputError
from tests.stack.conftest import wait
from tests.stack.month import RUNS_A_DAY

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module", autouse=True)
def the_stacks_own_service_rests(stack):
    """It would be quicker than the test, now and then."""
    processes.end(stack.pids["maintenance"])
    yield
    stack.pids.update(lifecycle.up(stack.home, print).pids)


@pytest.fixture
def ended(client):
    """Makes a run of a deployment that ended in a state, without any worker having taken it."""
    made = []

    def make(state, name="experiment/top16"):
        far = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name(name).id, state=far)
        client.set_flow_run_state(run.id, state, force=True)
        made.append(run.id)
        return run.id

    yield make
    for run in made:
        client.delete_flow_run(run)


def test_no_flow_run_appears_unless_there_is_one_to_restart(stack, client, ended):
    count = lambda: len([run for run in client.read_flow_runs(limit=200) if run.name == "reaper"])  # noqa: E731
    before = count()
    ended(Failed(message="Flow run encountered an exception: InputError: share is 2: give less."))
    assert not look(stack.environment, attempts=3, delay=60, watch=Watch())
    assert count() == before
    crashed = ended(Crashed(message="gone"))
    assert look(stack.environment, attempts=3, delay=60, watch=Watch())
    assert client.read_flow_run(crashed).state.name == "AwaitingRetry"
    assert not look(stack.environment, attempts=3, delay=60, watch=Watch())
    assert count() == before + 1


def test_the_service_outlives_its_server_and_is_a_part_of_the_stack(stack, capsys):
    stack.pids.update(lifecycle.up(stack.home, print).pids)
    assert "the service that restarts workers" in capsys.readouterr().out
    assert stack.alive("maintenance")
    processes.end(stack.pids["maintenance"])
    nobody = {access.URL: f"http://127.0.0.1:{ports.choose(0)}/api"}
    command = [sys.executable, "-m", "infra.cli", "maintain", "--every", "1"]
    environment = {**stacks.full_environment(stack), **nobody}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=deploy.PROJECT) as service:
        lines = [service.stderr.readline() for _ in range(2)]
        service.terminate()
    assert all("could not be looked after" in line for line in lines)


def test_it_sets_going_what_failed_and_nothing_else(stack, client, ended):
    crashed, failed = ended(Crashed(message="gone")), ended(Failed(message="exception: ConnectionError: reset"))
    wrong = ended(Failed(message="Flow run encountered an exception: InputError: share is 2: give less."))
    cancelled, foreign = ended(Cancelled()), ended(Crashed(), "maintenance/reaper")
    with connected(stack.environment):
        reaper()
    states = {run: client.read_flow_run(run).state for run in (crashed, failed, wrong, cancelled, foreign)}
    assert {states[crashed].name, states[failed].name} == {"AwaitingRetry"}
    assert states[crashed].state_details.scheduled_time > datetime.now(UTC) + FIRST_DELAY / 2
    assert [states[run].type for run in (wrong, cancelled, foreign)] == [
        StateType.FAILED,
        StateType.CANCELLED,
        StateType.CRASHED,
    ]


def test_a_run_is_given_up_after_its_attempts(stack, client, ended):
    crashed = ended(Crashed(message="gone"))
    with connected(stack.environment):
        outcome = reaper(attempts=0)
    name = client.read_flow_run(crashed).name
    assert name in outcome["given up"]
    assert client.read_flow_run(crashed).state.type == StateType.CRASHED


def test_a_run_whose_process_never_starts_is_given_up_too(stack, client, ended):
    gone = Crashed(message="Flow run could not be started: no such interpreter")
    run = ended(gone)
    name, outcomes = client.read_flow_run(run).name, []
    for _ in range(3):
        with connected(stack.environment):
            outcomes.append(reaper(attempts=1, delay_seconds=3600))
        client.set_flow_run_state(run, gone, force=True)
    assert [name in outcome["set going"] for outcome in outcomes] == [True, False, False]
    assert name in outcomes[-1]["given up"]


def test_a_run_stays_ended_when_a_person_cancelled_a_part_of_it(stack, client, ended):
    parent, alone = ended(Failed(message="ChildFailed: train/train (x) is Cancelled")), ended(Crashed())
    waiting = client.create_task_run(deployed, parent, "waits")
    deployment = client.read_deployment_by_name("train/train")
    far = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    child = client.create_flow_run_from_deployment(
        deployment.id, parameters={"arm": "x"}, state=far, parent_task_run_id=waiting.id
    )
    client.set_flow_run_state(child.id, Cancelled(), force=True)
    stopping = ended(Running())
    for state in (Cancelling(), Crashed(message="No heartbeat for two minutes")):
        client.set_flow_run_state(stopping, state, force=True)
    names = [client.read_flow_run(run).name for run in (parent, stopping, alone)]
    with connected(stack.environment):
        outcome = reaper()
    assert [name in outcome["set going"] for name in names] == [False, False, True]
    client.delete_flow_run(child.id)


@task
def deployed() -> None:
    """Stands for the task by which a run waits for one of another deployment."""


def test_each_attempt_waits_longer_than_the_one_before(client, ended):
    run = client.read_flow_run(ended(Crashed(message="gone")))
    now = run.end_time
    waits = [due(run, ended, now) - now for ended in (1, 2, 3, 99)]
    assert waits == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, LONGEST_DELAY]
    assert not is_permanent(run)
    later = now + timedelta(days=2)
    assert run.id not in {found.id for found in failed_runs(client, later)}


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()], ids=["Cancelling", "Cancelled"])
def test_what_a_dead_parent_left_behind_is_cancelled_with_it(stack, client, ended, state):
    parent = ended(Crashed(message="gone"))
    waiting = client.create_task_run(deployed, parent, "waits")
    deployment = client.read_deployment_by_name("train/train")
    far = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    child = client.create_flow_run_from_deployment(
        deployment.id, parameters={"arm": "x"}, state=far, parent_task_run_id=waiting.id
    )
    client.set_flow_run_state(child.id, Running(), force=True)
    try:
        assert child.id not in {run.id for run in cancel_left_behind(client)}
        client.set_flow_run_state(parent, state, force=True)
        assert child.id in {run.id for run in cancel_left_behind(client)}
        assert client.read_flow_run(child.id).state.type == StateType.CANCELLING
    finally:
        client.delete_flow_run(child.id)


def test_a_silent_run_is_dead_only_if_the_server_listened(client, ended, monkeypatch):
    run, unheard = ended(Running()), ended(Running())

    def beat():
        emit_event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"})

    beat()
    wait(lambda: alive.last_heartbeat(client, run), 30)
    found, long_ago = client.read_flow_run(run), datetime.now(UTC) - timedelta(hours=1)
    found.state.timestamp = long_ago
    assert not alive.is_silent(client, found, long_ago)
    monkeypatch.setattr(alive, "SILENCE", timedelta(milliseconds=1))
    assert alive.is_silent(client, found, long_ago)
    assert not alive.is_silent(client, found, datetime.now(UTC) + timedelta(seconds=9))  # the server woke just now
    dead = {one.id for one in alive.declare_dead(client, Watch(since=long_ago, last=datetime.now(UTC)))}
    assert run in dead and unheard not in dead
    assert client.read_flow_run(run).state.type == StateType.CRASHED

    assert not alive.lives(client, client.read_flow_run(run))
    beat()
    wait(lambda: alive.lives(client, client.read_flow_run(run)), 30)


def test_a_run_whose_worker_was_killed_before_it_started_it_waits_for_another(client, ended, monkeypatch):
    run, now = ended(Pending()), datetime.now(UTC)
    long_ago, soon = now - timedelta(hours=1), now + timedelta(minutes=1)
    assert put_back(client, Watch(since=long_ago, last=now)) == [], "it may still be starting"
    monkeypatch.setattr(maintenance, "START", timedelta(milliseconds=1))
    assert put_back(client, Watch(since=soon, last=now)) == [], "the server woke just now"
    client.update_work_pool("cpu", WorkPoolUpdate(is_paused=True))  # it must not start here
    try:
        assert [one.id for one in put_back(client, Watch(since=long_ago, last=now))] == [run]
        assert client.read_flow_run(run).state.name == "AwaitingRetry"
    finally:
        client.set_flow_run_state(run, Cancelled(), force=True)
        client.update_work_pool("cpu", WorkPoolUpdate(is_paused=False))


def test_what_the_server_keeps_is_bounded(stack, client, tmp_path):
    """Months of runs in a copy of its database, cleared by its settings."""
    kept = client.request("GET", "/admin/settings").json()["server"]
    assert set(kept["services"]["db_vacuum"]["enabled"]) == {"events", "flow_runs"}
    with sqlite3.connect(stack.home / "prefect" / "prefect.db") as server, sqlite3.connect(tmp_path / "db") as copy:
        server.backup(copy)
    command = [sys.executable, "-m", "tests.stack.month", str(tmp_path / "db")]
    environment = stacks.full_environment(stack) | stack.private("server")
    done = subprocess.run(command, env=environment, cwd=deploy.PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for rows, oldest in found["ages"].values():
        assert rows >= 30 * RUNS_A_DAY and 29 < oldest < 30
    assert max(found["sizes"]) < 1.05 * found["sizes"][0]


def test_how_long_it_is_kept_can_be_said(stack, monkeypatch):
    monkeypatch.setenv("FABRATING_KEEP_DAYS", "7")
    assert stack.private("server")["PREFECT_SERVER_EVENTS_RETENTION_PERIOD"] == "P7D"
    monkeypatch.setenv("FABRATING_KEEP_DAYS", "a week")
    with pytest.raises(InputError, match="FABRATING_KEEP_DAYS is 'a week': give a whole number"):
        stack.private("server")
