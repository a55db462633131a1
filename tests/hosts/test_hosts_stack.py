"""With a real Prefect server: a bare account becomes an online worker that runs work, through a cut, and is removed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.spec import Host
from tests.hosts.hosts_lab import Lab, parameters

pytestmark = [pytest.mark.stack, pytest.mark.slow]
PROJECT = Path(__file__).resolve().parents[2]


def call(api: str, method: str, path: str, body: object = None) -> object:
    request = urllib.request.Request(
        api + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A fresh server: (its API, the environment for its clients)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = (tmp_path / "server.log").open("wb")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        for _ in range(240):
            try:
                call(api, "GET", "/health")
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((tmp_path / "server.log").read_text()[-2000:])
        yield api, environment
    finally:
        server.terminate()
        server.wait(30)


def run_flow(environment: dict[str, str], name: str, **arguments: object) -> dict[str, object]:
    """Run a flow of flows/provision.py in a process of its own; its result."""
    code = (
        "import json, sys; from flows import provision; from tasks.spec import Host\n"
        "a = json.loads(sys.argv[2]); a['host'] = Host(**a['host'])\n"
        "print('RESULT ' + json.dumps(getattr(provision, sys.argv[1])(**a)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, json.dumps(arguments)],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.rsplit("RESULT ", 1)[1].splitlines()[0])


def workers(api: str) -> dict[str, str]:
    return {one["name"]: one["status"] for one in call(api, "POST", "/work_pools/gpu/workers/filter", {})}


def test_bare_account_to_online_worker_and_back(lab: Lab, prefect: tuple[str, dict[str, str]]) -> None:
    api, environment = prefect
    machine = lab.host("worker")
    host: Host = parameters(machine, server=api, tunnel_port=4302)
    call(api, "POST", "/work_pools/", {"name": "gpu", "type": "process", "concurrency_limit": 1})
    first = run_flow(environment, "gpu_host", host=host.model_dump())
    assert set(first["changed"]) >= {"environment", "fabrating", "secrets", "smoke", "way-back", "worker"}
    assert workers(api) == {"worker": "ONLINE"}
    again = run_flow(environment, "gpu_host", host=host.model_dump())
    assert again["changed"] == []
    reports = call(api, "POST", "/artifacts/filter", {"artifacts": {"key": {"any_": ["host-worker"]}}})
    assert "worker of the pool gpu" in reports[0]["data"]
    assert "steps of a d1 model on cpu" in reports[0]["data"]

    # The worker takes work: a run that sleeps, with the link cut for longer than a poll in the middle.
    flow = call(api, "POST", "/flows/", {"name": "rest"})
    deployment = call(
        api,
        "POST",
        "/deployments/",
        {
            "name": "here",
            "flow_id": flow["id"],
            "work_pool_name": "gpu",
            "entrypoint": "rest.py:rest",
            "path": ".",
            "pull_steps": [],
            "job_variables": {"working_dir": str(machine.home)},
        },
    )
    code = "import time\nfrom prefect import flow\n@flow\ndef rest():\n    time.sleep(25)\n    open('slept', 'w').write('well')\n"
    machine.run(f"cat >rest.py <<'CODE'\n{code}CODE")
    run = call(api, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"name": "sleeper"})

    def state() -> str:
        return call(api, "GET", f"/flow_runs/{run['id']}")["state"]["type"]

    assert until(120, lambda: state() == "RUNNING")
    machine.cut()
    time.sleep(15)
    machine.mend()
    assert until(180, lambda: state() == "COMPLETED"), state()
    assert machine.run("cat slept") == "well"

    removed = run_flow(environment, "remove_host", host=host.model_dump())
    assert set(removed["changed"]) == {"worker", "way-back", "files", "pool"}
    assert workers(api) == {}
    assert "worker.sh" not in machine.run("ps ax -o args")


def until(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(1)
    return False
