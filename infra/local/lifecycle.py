"""The local stack, all on loopback: Prefect server, Azurite, reports, workers, the service that restarts runs.

`up` starts what is not running, `down` stops exactly what `up` started.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local import access, azurite, database, deploy, ports, processes
from infra.local.deploy import PROJECT
from infra.local.stack import FOLDER, ROOT, Say, Stack, full_environment, load, own_azure
from tasks.errors import InputError
from tasks.store.locks import locked

SERVER_PORT = 4200
LOCK = "stack.lock"
"""In the folder: one `up` or `down` at a time."""
START_SECONDS = 240  # a cold machine under load takes minutes to import Prefect


def up(home: Path, say: Say, owner: str = "up", port: int = SERVER_PORT, gpu: bool = True) -> Stack:
    """Start what is not running. A port in use is said and the next free one taken.

    `gpu` False: no worker of the gpu pool on this machine (one that runs is stopped), as other hosts serve it. Raises InputError when a part does not come up; what was started is stopped again.
    """
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / LOCK, say):
        stack = load(home) or Stack(home)
        if running(stack):
            say(f"The stack is running already: {stack.ui}")
        fresh, known = not stack.alive("server"), stack.password_file.exists()
        if fresh:
            if stack.mark:
                processes.stop(stack.mark)  # leftovers of a stack whose server is gone
            stack = Stack(home, mark=secrets.token_hex(8), owner=owner)
        elif owner == "up":
            stack.owner = "up"
        stack.gpu = gpu
        if not stack.root or not any(stack.alive(f"worker-{pool}") for pool in deploy.POOLS):
            stack.root = full_environment(stack).get(ROOT) or str(home.absolute() / FOLDER)
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


def start(stack: Stack, name: str, command: list[str]) -> int:
    """Start a process of the stack, which `down` ends; its log is logs/NAME.log. Returns its process id."""
    log = stack.home / "logs" / f"{name}.log"
    environment = full_environment(stack) | stack.private(name)
    return processes.start(command, mark=stack.mark, log=log, cwd=PROJECT, environment=environment)


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
        return [sys.executable, "-m", "infra.local.server", "start", "--host", ports.HOST, "--port", str(port)]

    _serve(
        stack, "server", "the Prefect server", port, command, lambda _: access.reachable(f"{stack.api}/health", 2), say
    )


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
        port = ports.choose(wanted)
        if port != wanted:
            say(f"Port {wanted} is in use: {what} takes {port}")
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
