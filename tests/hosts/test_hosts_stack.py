"""With a real Prefect server: a bare account becomes an online worker that trains an arm, through a cut, and is removed."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import ports
from infra.local.deploy import create_pools, deploy
from tasks.hosts.environment import lock_file
from tasks.spec import Host
from tests.hosts.lab import USER, Lab, no_index, parameters, versions, without_systemd
from tests.waiting import within

pytestmark = [pytest.mark.stack, pytest.mark.slow]
PROJECT = Path(__file__).resolve().parents[2]
PASSWORD = "people:plantedServerPassword"
STEPS = 700
WORKER = "[p]refect worker start"


def call(api: str, method: str, path: str, body: object = None) -> object:
    token = base64.b64encode(PASSWORD.encode()).decode()
    request = urllib.request.Request(
        api + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Basic {token}"},
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
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
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


def workers(api: str, field: str = "status") -> dict[str, str]:
    return {one["name"]: one[field] for one in call(api, "POST", "/work_pools/gpu/workers/filter", {})}


TRAIN = {
    **{"depth": 2, "sequence_length": 256, "window_pattern": "L", "batch_tokens": 256, "tokens": 256 * STEPS},
    **{"precision": "fp32", "device": "cpu", "wandb": "disabled", "eval_every": 10_000, "save_every": 100},
}
PREPARE = """cd "fab rating" && venv/bin/fabrating prepare "$HOME/raw" --root "$HOME/root" --share 0.8 --sequence-length 256 \\
    --json --set holdout_documents=40 --set holdout_fraction=0.1 --set vocab_size=512 --set documents_per_shard=64"""


@pytest.mark.parametrize("systemd", [False, True], ids=["supervised", "systemd"])
def test_bare_account_to_online_worker_and_back(
    lab: Lab, prefect: tuple[str, dict[str, str]], sample: Path, systemd: bool
) -> None:
    if systemd and (reason := without_systemd()):
        pytest.skip(reason)
    api, environment = prefect
    machine = lab.host("worker" if not systemd else "unit", systemd=systemd)
    if systemd:
        machine.run(f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/{USER}', user="root")
    host: Host = parameters(machine, server=api, tunnel_port=4302)
    create_pools(environment)
    deploy(environment)
    first = run_flow(environment, "gpu_host", host=host.model_dump())
    assert set(first["changed"]) >= {"environment", "fabrating", "secrets", "smoke", "way-back", "worker"}
    assert workers(api) == {machine.name: "ONLINE"}
    assert machine.run("cd 'fab rating' && stat -c %a secrets.env && grep -l plantedServer -r . || true").split() == [
        "600",
        "./secrets.env",
    ]
    again = run_flow(environment, "gpu_host", host=host.model_dump())
    assert again["changed"] == []
    machine.run("echo 'of older code' >'fab rating/state/smoke'")
    assert run_flow(environment, "gpu_host", host=host.model_dump())["changed"] == ["smoke"]
    reports = call(api, "POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [f"host-{machine.name}"]}}})
    assert "worker of the pool gpu" in reports[0]["data"]
    assert "steps of a d1 model on cpu" in reports[0]["data"]
    assert ("after a reboot the worker is away" in reports[0]["data"]) != systemd

    # The worker trains an arm: in the middle it is killed and the link is cut for longer than a poll, training goes on.
    shared = machine.folder / "raw"
    shutil.copytree(sample, shared)
    call_host = f"cp -r '{shared}' raw && {PREPARE}"
    arm = json.loads(machine.run(call_host))["arm"]
    deployment = call(api, "GET", "/deployments/name/train/train")
    body = {"parameters": {"arm": arm, "train": TRAIN, "root": f"{machine.home}/root"}}
    run = call(api, "POST", f"/deployments/{deployment['id']}/create_flow_run", body)

    def state() -> str:
        found = call(api, "GET", f"/flow_runs/{run['id']}")["state"]
        return found["type"] if found["type"] != "FAILED" else found["message"]

    def step() -> int:
        lines = machine.run("cat root/runs/*/metrics.jsonl 2>/dev/null || true").splitlines()
        return max((json.loads(line)["step"] for line in lines), default=0)

    assert within(120, lambda: step() > STEPS // 20), state()
    machine.run(f"pkill -9 -f '{WORKER}'")
    machine.cut()
    before = step()
    time.sleep(12)
    assert before < step() < STEPS
    machine.mend()
    assert within(240, lambda: state() == "COMPLETED"), state()
    assert step() == STEPS
    shown = call(api, "POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("bits per byte" in str(artifact["data"]) for artifact in shown)

    if systemd:
        machine.reboot()
    else:
        machine.run(f"pkill -9 -f '{WORKER}'")
    seen = workers(api, "last_heartbeat_time")
    assert within(120, lambda: workers(api, "last_heartbeat_time")[machine.name] > seen[machine.name])
    removed = run_flow(environment, "remove_host", host=host.model_dump())
    assert set(removed["changed"]) == {"worker", "way-back", "files", "pool"}
    assert workers(api) == {}
    assert machine.run(f"pgrep -af '{WORKER}|[w]orker.sh' || true") == ""
    assert machine.run("find /etc/systemd -name 'fabrating*'") == ""


def test_environment_from_the_lock_file_ends_in_an_online_worker(lab: Lab, prefect: tuple[str, dict[str, str]]) -> None:
    if reason := no_index():
        pytest.skip(reason)
    api, environment = prefect
    machine = lab.host("online", network=0, disk="8g")
    links = os.environ.get("PIP_FIND_LINKS")
    changes = {"python_environment": None, "find_links": links, "tunnel_port": ports.choose(0)}
    host = parameters(machine, server=api, **changes)
    create_pools(environment)
    first = run_flow(environment, "gpu_host", host=host.model_dump())
    assert set(first["changed"]) >= {"environment", "fabrating", "smoke", "worker"}
    assert workers(api) == {"online": "ONLINE"}
    assert run_flow(environment, "gpu_host", host=host.model_dump())["changed"] == []

    freeze = 'cd "fab rating" && UV_CACHE_DIR=cache/uv tools/bin/uv pip freeze --python venv/bin/python'
    found = versions(machine.run(freeze).splitlines())
    torch, rest = lock_file()
    pinned = versions([torch, *rest.splitlines()])
    assert found["torch"] == pinned["torch"] + "+cpu"
    del pinned["torch"]
    assert {name: found.get(name) for name in pinned} == pinned
    run_flow(environment, "remove_host", host=host.model_dump(), artifacts=True)
    assert machine.run("ls -A") == ""
