"""The production stack asks for a password, speaks TLS, keeps its secrets, and comes back from a backup."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from infra.local import processes
from tasks.records.layout import REPORT
from tasks.reports.report import write_verdict
from tasks.verdict.judge import judge
from tests.planted import Bench
from tests.postgres import programs
from tests.production.conftest import DATABASE_PASSWORD, FILES, PASSWORD, Production, clean, settings

pytestmark = pytest.mark.stack
PROJECT = FILES.parents[1]


def test_nobody_gets_in_without_the_password(production: Production):
    for auth, status in ((None, 401), ("people:wrong", 401), (PASSWORD, 200)):
        with production.client(auth) as client:
            assert client.post("/flow_runs/filter", json={}).status_code == status
            ask = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
            assert "access-control-allow-origin" not in client.options("/flow_runs/filter", headers=ask).headers


def test_plain_http_is_sent_to_https(production: Production):
    answer = httpx.get(f"{production.plain}/api/health", follow_redirects=False)
    assert answer.status_code in (301, 308)
    assert answer.headers["Location"].startswith("https://localhost")
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{production.url}/api/health")  # an authority that nobody was told to trust


def test_the_proxy_is_the_only_way_in(production: Production):
    open_to_others = {
        connection.laddr.port
        for process in processes.members(production.mark)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in ("127.0.0.1", "::1")
    }
    assert open_to_others == {int(production.url.rpartition(":")[2]), int(production.plain.rpartition(":")[2])}


def test_a_worker_with_the_password_runs_a_flow_and_no_secret_shows(production: Production, sample: Path):
    key = "plantedStorageKey" * 4
    worker = settings("worker.env.example") | {
        "PREFECT_API_URL": f"{production.url}/api",
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_SSL_CERT_FILE": str(production.certificate),
        "PREFECT_HOME": str(production.home / "worker"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "FABRATING_HOME": str(production.home / "fabrating"),
        "FABRATING_ROOT": str(production.home / "root"),
        "FABRATING_SAMPLE": str(sample),
        "AZURE_STORAGE_ACCOUNT": "somebody",
        "AZURE_STORAGE_KEY": key,
        "WANDB_API_KEY": "c0ffee" * 6 + "c0ff",
        "HF_TOKEN": "hf_plantedToken",
    }
    environment = clean() | worker
    prefect = [sys.executable, "-m", "prefect"]
    fabrating = [sys.executable, "-m", "infra.cli"]
    subprocess.run([*fabrating, "deploy"], cwd=PROJECT, env=environment, check=True, capture_output=True)
    pid = processes.start(
        [*prefect, "worker", "start", "--type", "process", "--pool", "cpu", "--name", "one"],
        mark=production.mark,
        log=production.home / "logs" / "worker.log",
        cwd=PROJECT,
        environment=environment,
    )
    parameters = json.dumps({"data": {"name": "sample", "source": str(sample)}})
    arguments = ["deployment", "run", "survey/survey", "--watch", "--params", parameters]
    with subprocess.Popen(
        [*prefect, *arguments], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        seen: set[str] = set()
        while run.poll() is None:
            seen.update(_command_lines())
        said = run.stdout.read().decode()
    assert run.returncode == 0, said + production.log("worker")
    psutil.Process(pid).terminate()

    secrets = [PASSWORD.partition(":")[2], DATABASE_PASSWORD, key, worker["WANDB_API_KEY"], worker["HF_TOKEN"]]
    dump = subprocess.run(
        [programs() / "pg_dump"],
        env=clean() | production.settings,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "survey" in dump
    assert any("prefect" in line for line in seen)
    places = {"the database": dump, "command lines": "\n".join(seen), "what the run said": said}
    for path in production.home.rglob("*"):
        if path.is_file() and "postgres" not in path.parts:
            places[str(path)] = path.read_bytes().decode("latin1")
    assert [(where, secret[:8]) for where, text in places.items() for secret in secrets if secret in text] == []


def test_reports_are_served_behind_the_same_password(production: Production, bench: Bench):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    made = write_verdict(bench.root, judge(bench.root, "demo", arms))
    with production.client() as client:
        assert client.get(f"{production.url}/reports/").status_code == 503  # nobody serves them yet, and says so
    production.start_reports(bench.root.folder)
    with production.client(None) as client:
        assert client.get(f"{production.url}/reports/{made.name}").status_code == 401
    with production.client() as client:
        listed = client.get(f"{production.url}/reports", follow_redirects=True)
        (link,) = (link for link in re.findall(r'href="(.*?)"', listed.text) if link.startswith("verdicts/"))
        shown = client.get(listed.url.join(link))
        assert shown.text == (made.path / REPORT).read_text()
        assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
        assert client.get("/health").status_code == 200  # the API is where it was


@pytest.mark.slow
def test_whoever_asks_while_the_server_is_away_waits_for_it(production: Production):
    _stop_server(production)
    with production.client() as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.headers["Prefect-Maintenance"], answer.headers["Retry-After"]) == (
        503,
        "true",
        "10",
    )
    code = "from prefect.client.orchestration import get_client\nwith get_client(sync_client=True) as c: c.read_flows()"
    patience = {
        "PREFECT_API_URL": f"{production.url}/api",
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_SSL_CERT_FILE": str(production.certificate),
        "PREFECT_HOME": str(production.home / "waiting"),
        "PREFECT_CLIENT_MAX_RETRIES": "0",  # it counts as no failed try
    }
    doctor = [sys.executable, "-m", "infra.cli", "doctor", "--json"]
    said = subprocess.run(doctor, env=clean() | patience, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert "does not answer (ConnectionError)" in said.stdout  # at once: who asks what is wrong does not want to wait
    with subprocess.Popen([sys.executable, "-c", code], env=clean() | patience) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(8)
        production.start_server()
        assert waiting.wait(60) == 0


def test_a_backup_brings_back_what_was_lost(production: Production):
    with production.client() as client:
        assert client.post("/variables/", json={"name": "kept", "value": "well"}).status_code == 201
    backups = [production.script("backup.sh") for _ in range(1)]
    assert Path(backups[0]).stat().st_mode & 0o077 == 0
    with production.client() as client:
        assert client.delete("/variables/name/kept").status_code == 204
    _stop_server(production)
    production.script("restore.sh", backups[0])
    production.start_server()
    with production.client() as client:
        assert client.get("/variables/name/kept").json()["value"] == "well"


def test_old_backups_go_and_broken_ones_never_count(production: Production, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(production.settings, "FABRATING_BACKUPS_KEPT", "2")
    folder = production.home / "backups"
    folder.mkdir(exist_ok=True)
    for year in range(2001, 2004):
        (folder / f"prefect-{year}0101T000000Z.dump").write_bytes(b"old")
    newest = production.script("backup.sh")
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == 2
    assert left[-1] == Path(newest).name
    monkeypatch.setitem(production.settings, "PGDATABASE", "nowhere")
    with pytest.raises(AssertionError, match="nowhere"):
        production.script("backup.sh")
    assert sorted(path.name for path in folder.iterdir()) == left


def test_compose_says_the_same_as_the_units():
    compose = yaml.safe_load((FILES / "compose.yaml").read_text())
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    example = settings("server.env.example")
    asked = {
        word.split(":")[0]
        for service in services.values()
        for value in service.get("environment", {}).values()
        for word in str(value).split("${")[1:]
    }
    assert asked <= set(example)
    assert {name for name, value in example.items() if not value} <= asked  # compose refuses an empty one
    pins = (PROJECT / "requirements.lock").read_text()
    assert f"prefect=={services['server']['image'].split(':')[1].split('-')[0]}\n" in pins


def _stop_server(production: Production) -> None:
    server = next(p for p in processes.members(production.mark) if "server" in p.cmdline())
    server.terminate()
    server.wait(60)


def _command_lines() -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
