"""The local stack, all on loopback and all below one folder: Prefect server, Azurite, workers, the service that restarts runs.

`up` starts what is not running, `down` stops exactly what `up` started. The folder (`.fabrating`, or FABRATING_HOME)
holds the server's database, logs, the sample, `stack.json`, which says what runs where, and two secrets that are made at the
first start: `password`, which the server's API asks for, and `azurite.key`.
"""

import contextlib
import json
import os
import secrets
import shlex
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from infra.local import access, azurite, database, deploy, ports, processes
from infra.local.deploy import PROJECT
from tasks.cores import cores
from tasks.errors import InputError
from tasks.reports.address import VARIABLE as REPORTS
from tasks.store import azure
from tasks.store.artifact import write_atomic
from tasks.store.locks import locked
from tasks.store.root import DEFAULT_ROOT

SERVER_PORT = 4200
ROOT = "FABRATING_ROOT"
LOCK = "stack.lock"
"""In the folder: one `up` or `down` at a time."""
START_SECONDS = 240  # a cold machine under load takes minutes to import Prefect
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
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
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
        """What this part alone has to know: the server, whom it lets in; Azurite, its account's key."""
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

    This shell's FABRATING_ROOT, else what the running stack's workers take, else that of `.env`, else a folder in the project.
    """
    named, in_file = os.environ.get(ROOT), dotenv_values(PROJECT / ".env").get(ROOT)
    if named and named != in_file:
        return named, f"{ROOT} of this shell"
    running = load(home or default_home())
    if running is not None and running.root and running.alive("server"):
        return running.root, "the running stack's"
    return (in_file, f"{ROOT} of .env") if in_file else (str(PROJECT / DEFAULT_ROOT), "the default")


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


def up(home: Path, say: Say, owner: str = "up", port: int = SERVER_PORT, gpu: bool = True) -> Stack:
    """Start what is not running. A port in use is said and the next free one taken.

    `gpu` False: no worker of the gpu pool on this machine (one that runs is stopped), as other hosts serve it. Raises InputError when a part does not come up; what was started is stopped again.
    """
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / LOCK, say):
        stack = load(home) or Stack(home)
        if running(stack):
            say(f"The stack is running already: {stack.ui}")
        if stack.alive("server") and access.is_open(stack.api):
            _close(stack, say)
        fresh, known = not stack.alive("server"), stack.password_file.exists()
        if fresh:
            if stack.mark:
                processes.stop(stack.mark)  # leftovers of a stack whose server is gone
            stack = Stack(home, mark=secrets.token_hex(8), owner=owner)
        elif owner == "up":
            stack.owner = "up"
        stack.gpu = gpu
        if not stack.root or not any(stack.alive(f"worker-{pool}") for pool in deploy.POOLS):
            stack.root = full_environment(stack).get(ROOT) or str(PROJECT / DEFAULT_ROOT)
        try:
            with ThreadPoolExecutor(1) as meanwhile:
                if stack.deployed == "":
                    meanwhile.submit(deploy.load_flows)  # what cannot be imported is said by `_deploy`
                _start_stores(stack, say)
                _start_server(stack, say, port)
            if not known:
                say(f"The UI asks for a password: {stack.password} (kept in {stack.password_file})")
            _start_reports(stack, say)
            stack.save()
            _deploy(stack, say)
            _start_workers(stack, say)
            _start_maintenance(stack, say)
        except BaseException:
            if fresh:
                processes.stop(stack.mark)
            raise
        stack.save()
    return stack


def down(home: Path, say: Say) -> int:
    """Stop all processes of this folder's stack, runs in progress included. Returns how many there were."""
    stack = load(home)
    if stack is None or not stack.mark:
        return 0
    with locked(home / LOCK, say):
        return stop(stack)


def stop(stack: Stack) -> int:
    """End every process of the stack: workers first, then their runs, then the server."""
    workers = [pid for name, pid in stack.pids.items() if name.startswith("worker")]
    return processes.stop(stack.mark, first=workers)


def keep_workers(home: Path, say: Say) -> None:
    """Start again what has died of the stack's workers. Called by a process of the stack, again and again."""
    stack = load(home)
    mark = os.environ.get(processes.MARK)
    kept = ["reports", *(f"worker-{pool}" for pool in stack.pools)] if stack is not None else []
    if stack is None or stack.mark != mark or all(map(stack.alive, kept)):
        return
    with locked(home / LOCK, say):
        stack = load(home)
        if stack is not None and stack.mark == mark and stack.alive("server"):
            _start_reports(stack, say)
            _start_workers(stack, say)
            stack.save()


def running(stack: Stack | None) -> bool:
    """Whether all parts of the stack live."""
    return stack is not None and all(map(stack.alive, stack.parts))


def server_environment(stack: Stack | None) -> dict[str, str]:
    """What lets a client into the server that this shell names, or else into the stack's; empty when there is neither.

    The password of the stack's own server is known, and told to nobody else who listens there; another server's is in
    PREFECT_API_AUTH_STRING.
    """
    api = os.environ.get(access.URL) or (stack.api if stack else "")
    if stack is not None and api.rstrip("/") == stack.api and stack.alive("server"):
        return {access.URL: api, access.PASSWORD: stack.password}
    return {access.URL: api} if api else {}


def own_azure() -> bool:
    """Whether a real storage account is configured: then Azurite is not started and the sample goes to a folder."""
    settings = {**dotenv_values(PROJECT / ".env"), **os.environ}
    return any((value := settings.get(name)) and azurite.ACCOUNT not in value for name in azure.OWN)


def _start_stores(stack: Stack, say: Say) -> None:
    if stack.alive("azurite") or own_azure():
        return
    if not azurite.available():
        stack.azurite_port = 0
        return
    stack.azurite_port = _serve(
        stack,
        "azurite",
        "Azurite",
        stack.azurite_port or azurite.PORT,
        lambda port: azurite.command(port, stack.home / "azurite"),
        azurite.answers,
        say,
    )


def _close(stack: Stack, say: Say) -> None:
    """End a stack that lets everybody in: its server was started by a version without passwords.

    Raises InputError while runs are active there, which would be shut out with everybody else.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType

    from flows.maintenance import TAG

    active = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])),
    )
    with access.connected({access.URL: stack.api}), get_client(sync_client=True) as client:
        runs = [run.name for run in client.read_flow_runs(flow_run_filter=active)]
    if runs:
        raise InputError(
            f"The server at {stack.api} has no password yet, and runs are active there ({', '.join(runs[:5])}): run the "
            "command again when they have ended, or `fabrating down` first, which ends them."
        )
    say("The stack ran without a password and starts anew with one; for each host, run provision/gpu-host again")
    stop(stack)


def _start_reports(stack: Stack, say: Say) -> None:
    """After the server, whose password they ask for, and before the workers, which tell where they are."""
    if stack.alive("reports"):
        return

    def command(port: int) -> list[str]:
        stack.reports_port = port
        return [sys.executable, "-m", "infra.local.pages", str(port), stack.root]

    wanted = stack.reports_port or stack.server_port + 1
    _serve(stack, "reports", "the server of reports", wanted, command, ports.accepts, say)


def _start_server(stack: Stack, say: Say, port: int) -> None:
    if stack.alive("server"):
        return
    database.place(stack.home / "prefect")

    def command(port: int) -> list[str]:
        stack.server_port = port  # the environment that the server starts with names it
        say(f"Starting the Prefect server on {stack.ui}")
        return [sys.executable, "-m", "prefect", "server", "start", "--host", ports.HOST, "--port", str(port)]

    _serve(stack, "server", "the Prefect server", port, command, lambda _: _healthy(stack.api), say)


def _serve(
    stack: Stack,
    name: str,
    what: str,
    wanted: int,
    command: Callable[[int], list[str]],
    answers: Callable[[int], bool],
    say: Say,
) -> int:
    """Start a part on the wanted port or the next free one, and wait until it answers there. Returns the port."""
    while True:
        port = _choose(wanted, what, say)
        stack.pids[name] = start(stack, name, command(port))
        if _comes_up(stack, name, port, answers):
            return port
        if stack.alive(name) or ports.is_free(port):
            log = stack.home / "logs" / f"{name}.log"
            raise InputError(f"{what[0].upper()}{what[1:]} did not come up on port {port}: see {log}.{_end(log)}")
        # a stranger took the port in the seconds between: the next one, then


def _end(log: Path, lines: int = 10) -> str:
    """The last lines of a log, to be shown below an error."""
    with contextlib.suppress(OSError):
        last = log.read_text(errors="replace").splitlines()[-lines:]
        return "".join(f"\n    {line}" for line in last)
    return ""


def _comes_up(stack: Stack, name: str, port: int, answers: Callable[[int], bool]) -> bool:
    """Wait until the part itself listens on the port and answers; False when it dies or takes too long."""
    return ports.wait(lambda: stack.listens(name, port) and answers(port), lambda: stack.alive(name), START_SECONDS)


def _deploy(stack: Stack, say: Say) -> None:
    version = f"{deploy.version()} {stack.sample}"
    if stack.deployed:
        for pool, what in deploy.wrong_pools(stack.environment).items():
            say(f"The work pool {pool} {what}: mending it")
            stack.deployed = ""
    if stack.deployed == version:
        return
    deploy.create_pools(stack.environment)
    say("Deploying the flows of deployments/prefect.yaml")
    deploy.deploy(full_environment(stack))
    stack.deployed = version


def _start_workers(stack: Stack, say: Say) -> None:
    for pool in deploy.POOLS:
        name = f"worker-{pool}"
        if pool not in stack.pools:
            if stack.alive(name):
                say(f"Stopping the worker for the work pool {pool}")
                processes.end(stack.pids[name])
            stack.pids.pop(name, None)
            continue
        if stack.alive(name):
            continue
        say(f"Starting a worker for the work pool {pool}")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool]
        command += ["--name", f"local-{pool}", *deploy.worker_options(pool)]
        stack.pids[name] = start(stack, name, command)


def _start_maintenance(stack: Stack, say: Say) -> None:
    if not stack.alive("maintenance"):
        say("Starting the service that restarts workers that died and runs that ended badly")
        stack.pids["maintenance"] = start(stack, "maintenance", [sys.executable, "-m", "infra.cli", "maintain"])


def start(stack: Stack, name: str, command: list[str]) -> int:
    """Start a process of the stack, which `down` ends; its log is logs/NAME.log. Returns its process id."""
    log = stack.home / "logs" / f"{name}.log"
    environment = full_environment(stack) | stack.private(name)
    return processes.start(command, mark=stack.mark, log=log, cwd=PROJECT, environment=environment)


def full_environment(stack: Stack) -> dict[str, str]:
    """This process's environment for a part or a client of the stack, with what `.env` adds to it (credentials, keys).

    Prefect settings of the shell do not leak in.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    added = {name: value for name, value in dotenv_values(PROJECT / ".env").items() if value is not None}
    return {**added, **inherited, **stack.environment}


def _choose(wanted: int, what: str, say: Say) -> int:
    port = ports.choose(wanted)
    if port != wanted:
        say(f"Port {wanted} is in use: {what} takes {port}")
    return port


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
