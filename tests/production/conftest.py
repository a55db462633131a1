"""The production stack without containers, from its own files: PostgreSQL, the Prefect server, Caddy with TLS."""

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from infra.local import ports, processes
from tasks.errors import InputError
from tests.postgres import Postgres, programs

FILES = Path(__file__).resolve().parents[2] / "infra" / "production"
PASSWORD, DATABASE_PASSWORD = "people:plantedServerPassword", "plantedDatabasePassword"


@dataclass
class Production:
    """A running one. `url`: where browsers go; `settings`: server.env, filled in; `certificate`: the authority's root."""

    home: Path
    mark: str
    url: str
    plain: str
    port: int
    settings: dict[str, str]
    certificate: Path
    database: Postgres

    def client(self, auth: str | None = PASSWORD) -> httpx.Client:
        """A browser, or a worker, from outside."""
        name, _, word = (auth or ":").partition(":")
        return httpx.Client(
            base_url=f"{self.url}/api",
            auth=(name, word) if auth else None,
            verify=ssl.create_default_context(cafile=str(self.certificate)),
            timeout=30,
        )

    def start_server(self) -> int:
        """Start the Prefect server as its unit does, but on a free port, and wait until it answers."""
        pid = processes.start(
            command_of("fabrating-server", {"4200": str(self.port)}),
            mark=self.mark,
            log=self.home / "logs" / "server.log",
            cwd=self.home,
            environment=clean() | self.settings,
        )
        assert ports.wait(self.answers, lambda: processes.belongs(pid, self.mark), 240), self.log("server")
        return pid

    def start_reports(self, root: Path) -> None:
        """Start the server of reports as its unit does, likewise."""
        port = self.settings["FABRATING_REPORTS_UPSTREAM"].rpartition(":")[2]
        pid = processes.start(
            command_of("fabrating-reports", {"4201": port, "${FABRATING_ROOT}": str(root)}),
            mark=self.mark,
            log=self.home / "logs" / "reports.log",
            cwd=FILES.parents[1],
            environment=clean() | self.settings,
        )
        up = ports.wait(lambda: ports.accepts(int(port)), lambda: processes.belongs(pid, self.mark), 60)
        assert up, self.log("reports")

    def answers(self) -> bool:
        """Whether the API answers through the proxy."""
        try:
            with self.client(None) as client:
                return client.get("/health").status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text()

    def script(self, name: str, *arguments: str) -> str:
        """Run one of the scripts with the server's settings; what it printed."""
        tools = f"{programs()}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", str(FILES / name), *arguments],
            env=clean() | self.settings | {"PATH": tools, "FABRATING_BACKUPS": str(self.home / "backups")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def command_of(unit: str, instead: dict[str, str]) -> list[str]:
    """What a unit starts, by this Python, with some of its words replaced."""
    lines = (FILES / f"{unit}.service").read_text().splitlines()
    words = next(line for line in lines if line.startswith("ExecStart=")).split()[1:]
    return [sys.executable, *(instead.get(word, word) for word in words)]


def clean() -> dict[str, str]:
    """This process's environment without settings of other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PG"))}


def settings(name: str) -> dict[str, str]:
    """The settings of an example file."""
    lines = (line.partition("=") for line in (FILES / name).read_text().splitlines() if line and line[0] != "#")
    return {key: value for key, _, value in lines}


@pytest.fixture(scope="session")
def production() -> Iterator[Production]:
    """The stack, or a skip that says what is not installed."""
    if shutil.which("caddy") is None:
        pytest.skip("Caddy is not installed (Debian package caddy)")
    home = Path(tempfile.mkdtemp(prefix="fabrating-production-"))
    home.chmod(0o755)
    database = Postgres(home / "postgres")
    try:
        database.create()
    except InputError as error:
        pytest.skip(str(error))
    database.start()
    database.ask(f"create role prefect login password '{DATABASE_PASSWORD}'")
    database.ask("create database prefect owner prefect")
    port, reports, https, http = (ports.choose(0) for _ in range(4))
    values = settings("server.env.example") | {
        "FABRATING_HOST": "localhost",
        "FABRATING_HTTPS_PORT": str(https),
        "FABRATING_HTTP_PORT": str(http),
        "FABRATING_UPSTREAM": f"127.0.0.1:{port}",
        "FABRATING_REPORTS_UPSTREAM": f"127.0.0.1:{reports}",
        "PREFECT_SERVER_UI_API_URL": f"https://localhost:{https}/api",
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(home / "prefect"),
        "PGPORT": str(database.port),
        "PGPASSWORD": DATABASE_PASSWORD,
        "XDG_DATA_HOME": str(home / "caddy"),
        "XDG_CONFIG_HOME": str(home / "caddy"),
    }
    mark = os.urandom(8).hex()
    certificate = home / "caddy" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    made = Production(
        home, mark, f"https://localhost:{https}", f"http://localhost:{http}", port, values, certificate, database
    )
    try:
        proxy = processes.start(
            ["caddy", "run", "--config", str(FILES / "Caddyfile"), "--adapter", "caddyfile"],
            mark=mark,
            log=home / "logs" / "caddy.log",
            cwd=home,
            environment=clean() | values,
        )
        assert ports.wait(certificate.is_file, lambda: processes.belongs(proxy, mark), 30), made.log("caddy")
        made.start_server()
        yield made
    finally:
        processes.stop(mark)
        database.stop()
        shutil.rmtree(home, ignore_errors=True)
