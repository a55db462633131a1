"""What runs where in the local stack, and what its parts and clients have to know. `lifecycle` starts and stops it.

All of it lies below one folder (`.fabrating`, or FABRATING_HOME): the server's database, logs, the sample, `stack.json`, which
says what runs where, and two secrets that are made at the first start: `password`, which the server's API asks for, and
`azurite.key`.
"""

import json
import os
import secrets
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from infra.local import access, azurite, deploy, ports, processes
from infra.local.deploy import PROJECT
from tasks.cores import cores
from tasks.errors import InputError
from tasks.reports.address import VARIABLE as REPORTS
from tasks.store import azure
from tasks.store.artifact import write_atomic

ROOT = "FABRATING_ROOT"
FOLDER = "root"  # of the stack's own, where artifacts lie unless a root is named
SAMPLE_CONTAINER, SAMPLE_NAME = "sample", "python-docs"

Say = Callable[[str], None]


@dataclass
class Stack:
    """What runs where: the content of `stack.json`. `pids` by name: server, reports, maintenance, azurite, worker-cpu, worker-gpu."""

    home: Path
    mark: str = ""
    owner: str = "up"
    server_port: int = 0
    azurite_port: int = 0
    reports_port: int = 0
    pids: dict[str, int] = field(default_factory=dict)
    deployed: str = ""
    gpu: bool = True
    root: str = ""
    """Where its workers keep artifacts, of runs that name no other root."""

    @property
    def pools(self) -> list[str]:
        """The work pools that a worker of this stack serves; without `gpu`, that pool is left to other hosts."""
        return [pool for pool in deploy.POOLS if pool != "gpu" or self.gpu]

    @property
    def parts(self) -> list[str]:
        """Names of the processes that a running stack has, besides Azurite."""
        return ["server", "reports", *(f"worker-{pool}" for pool in self.pools), "maintenance"]

    @property
    def ui(self) -> str:
        return f"http://{ports.HOST}:{self.server_port}"

    @property
    def pages(self) -> str:
        """Where the UI's pages are by address. The page of a run in the older UI, without v2, shows no login to who comes straight to it."""
        return f"{self.ui}/v2"

    def page(self, run: object) -> str:
        """The page of a flow run, by its ID."""
        return f"{self.pages}/runs/flow-run/{run}"

    @property
    def api(self) -> str:
        return f"{self.ui}/api"

    @property
    def reports(self) -> str:
        """Where the reports of runs and verdicts are served."""
        return f"http://{ports.HOST}:{self.reports_port}"

    @property
    def password_file(self) -> Path:
        return self.home / "password"

    @property
    def password(self) -> str:
        """What the server's API asks for, NAME:PASSWORD: whoever reaches it can run commands as its workers."""
        return access.secret(self.password_file, lambda: f"fabrating:{secrets.token_urlsafe(24)}")

    @property
    def store_key(self) -> str:
        """The key of Azurite's account."""
        return access.secret(self.home / "azurite.key", azurite.make_key)

    @property
    def store(self) -> str:
        """The connection string of Azurite."""
        return azurite.connection_string(self.azurite_port, self.store_key)

    @property
    def sample(self) -> str:
        """Where the demo's raw data lies."""
        return (
            f"az://{SAMPLE_CONTAINER}/{SAMPLE_NAME}" if self.azurite_port else str(self.home / "sample" / SAMPLE_NAME)
        )

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the stack, and every client of it, has to know."""
        variables = {
            "PREFECT_HOME": str(self.home / "prefect"),
            access.URL: self.api,
            access.PASSWORD: self.password,
            access.PAGES: self.pages,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_CLIENT_MAX_RETRIES": "20",
            "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504",  # what the server says while its database is away
            "DO_NOT_TRACK": "1",
            # One core is left to server and workers: OpenMP threads that wait for one without a core slow all others down.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")
            or str(min(cores(), max(1, (os.cpu_count() or 2) - 1))),
            "FABRATING_HOME": str(self.home),
            "FABRATING_SAMPLE": self.sample,
            **({REPORTS: self.reports} if self.reports_port else {}),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }
        if self.azurite_port:
            variables["AZURE_STORAGE_CONNECTION_STRING"] = self.store
        return variables

    def private(self, part: str) -> dict[str, str]:
        """What this part alone has to know: the server, whom it lets in; Azurite, its account's key; a worker, its root."""
        if part == "azurite":
            return azurite.accounts(self.store_key)
        if part == "server":
            origins = (self.ui, f"http://localhost:{self.server_port}")  # of the UI itself: no other page may ask
            days = keep_days()
            return {
                "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # runs with their logs and artifacts
                "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days * 86_400),
                "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{days}D",
                "PREFECT_SERVER_API_AUTH_STRING": self.password,
                # a run whose process is gone says nothing more: the others have this long to save a checkpoint
                "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "90",
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
            }
        if part.startswith("worker-") and self.root:
            return {ROOT: self.root}
        return {}

    def save(self) -> None:
        write_atomic(self.home / "stack.json", json.dumps({**asdict(self), "home": str(self.home)}, indent=1) + "\n")
        variables = {k: v for k, v in self.environment.items() if k != "PATH"}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
        write_atomic(
            self.home / "env",
            "# Source this to use `prefect` and `fabrating` with the stack.\n" + "\n".join(lines) + "\n",
            0o600,
        )

    def listens(self, name: str, port: int) -> bool:
        """Whether the part listens on the port itself; a stranger that was quicker does not count."""
        return name in self.pids and processes.listens(self.pids[name], port)

    def alive(self, name: str) -> bool:
        """Whether the part was started by this stack and lives."""
        return name in self.pids and processes.belongs(self.pids[name], self.mark)


def default_home() -> Path:
    """FABRATING_HOME, else `.fabrating` in the project."""
    return Path(os.environ.get("FABRATING_HOME") or PROJECT / ".fabrating").absolute()


def default_root(home: Path | None = None) -> tuple[str, str]:
    """The root of a command that names none, and why it is that one.

    This shell's FABRATING_ROOT, else what the running stack's workers take, else that of `.env`, else the folder `root` of the stack's.
    """
    named, in_file = os.environ.get(ROOT), dotenv_values(PROJECT / ".env").get(ROOT)
    if named and named != in_file:
        return named, f"{ROOT} of this shell"
    home = home or default_home()
    running = load(home)
    if running is not None and running.root and running.alive("server"):
        return running.root, "the running stack's"
    return (in_file, f"{ROOT} of .env") if in_file else (str(home / FOLDER), "the default")


def keep_days() -> int:
    """How long the server keeps ended runs, logs and events: FABRATING_KEEP_DAYS, else 30 days. Raises InputError."""
    given = os.environ.get("FABRATING_KEEP_DAYS") or "30"
    try:
        days = int(given)
    except ValueError:
        days = 0
    if not 1 <= days <= 36_500:
        raise InputError(f"FABRATING_KEEP_DAYS is {given!r}: give a whole number of days from 1 to 36500.")
    return days


def load(home: Path) -> Stack | None:
    """The stack that was started last in this folder, whether or not it still runs."""
    try:
        raw = json.loads((home / "stack.json").read_text())
        return Stack(**{**raw, "home": home})
    except (OSError, ValueError, TypeError):
        return None


def server_environment(stack: Stack | None) -> dict[str, str]:
    """What lets a client into the server that this shell names, or else into the stack's; empty when there is neither.

    The password of the stack's own server is known, and told to nobody else who listens there; another server's is in
    PREFECT_API_AUTH_STRING.
    """
    api = os.environ.get(access.URL) or (stack.api if stack else "")
    if stack is not None and api.rstrip("/") == stack.api and stack.alive("server"):
        return {access.URL: api, access.PASSWORD: stack.password, access.PAGES: stack.pages}
    return {access.URL: api} if api else {}


def own_azure() -> bool:
    """Whether a real storage account is configured: then Azurite is not started and the sample goes to a folder."""
    settings = {**dotenv_values(PROJECT / ".env"), **os.environ}
    return any((value := settings.get(name)) and azurite.ACCOUNT not in value for name in azure.OWN)


def full_environment(stack: Stack) -> dict[str, str]:
    """This process's environment for a part or a client of the stack, with what `.env` adds to it (credentials, keys).

    Prefect settings of the shell do not leak in.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    added = {name: value for name, value in dotenv_values(PROJECT / ".env").items() if value is not None}
    return {**added, **inherited, **stack.environment}
