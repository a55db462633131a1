"""The parts that faults are injected into: PostgreSQL, a Prefect server on it, Azurite behind the proxy, a worker for each pool.

Started as the product starts them, with its deployments and automations, and started again when they were killed, as a
service manager would.
"""

import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from infra.local import azurite, deploy, ports, processes
from infra.local.deploy import PROJECT
from infra.local.lifecycle import START_SECONDS
from infra.local.sample_data import build_sample
from infra.local.stack import SAMPLE_CONTAINER, SAMPLE_NAME, Stack
from tasks.errors import InputError
from tests.chaos.harness.proxy import Proxy
from tests.chaos.harness.reads import ROOTS
from tests.chaos.harness.server import Server
from tests.postgres import Postgres

RESTART_SECONDS = 3.0
"""A service manager's pause before it starts a killed service again."""
Say = Callable[[str], None]


@dataclass
class Rig:
    """All parts below one folder; `quick`: the service waits 5, 10, 20 s before it restarts a run, instead of 1, 2, 4 minutes."""

    home: Path
    say: Say
    quick: bool = True
    documents: int = 2_000
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    pids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.database = Postgres(self.home / "postgres")
        self.blob_port, self.server_port = ports.choose(0), 0
        self.proxy = Proxy(self.blob_port)

    @property
    def stack(self) -> Stack:
        """What the product's own stack would know of these parts; its blob service is the proxy."""
        return Stack(self.home, self.mark, "chaos", self.server_port, self.proxy.port, self.pids)

    @property
    def environment(self) -> dict[str, str]:
        """Of every part: the product's settings, and the database."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        settings = self.stack.environment | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.url}
        settings["FABRATING_CACHE"] = str(self.cache("first"))
        return inherited | settings

    @property
    def direct(self) -> str:
        """The connection string of Azurite, not through the proxy."""
        return azurite.connection_string(self.blob_port, self.stack.store_key)

    def cache(self, host: str) -> Path:
        """The local folder of a host for roots in the store."""
        return self.home / "caches" / host

    @property
    def server(self) -> Server:
        return Server(self.stack.api, self.mark, self.stack.password)

    def up(self) -> None:
        """Start everything and deploy. Raises InputError when a part is missing or does not come up."""
        if not azurite.available():
            raise InputError("Azurite is not installed: install Node.js and run `make setup`.")
        self.say("PostgreSQL, Azurite and the proxy")
        self.database.create()
        self.database.start()
        self.start_azurite()
        self.proxy.start()
        sample = build_sample(self.home, self.documents, packages=())
        azurite.upload(self.blob_port, SAMPLE_CONTAINER, SAMPLE_NAME, sample.path, self.stack.store_key)
        azurite.upload(self.blob_port, ROOTS, "none", self.home / "logs", self.stack.store_key)
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = self.direct  # of this process
        self.say("The Prefect server on PostgreSQL, deployments, two workers")
        self.server_port = ports.choose(0)
        self.start_server()
        deploy.create_pools(self.environment)
        deploy.deploy(self.environment)
        self._start_services()

    def power_off(self) -> None:
        """SIGKILL to everything but the database."""
        for process in processes.members(self.mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        while processes.members(self.mark):
            time.sleep(0.1)

    def power_on(self) -> None:
        """Start everything again, in the order of the product's `up`, and wait until the workers are online."""
        self.start_azurite()
        self.start_server()
        self._start_services()
        for pool in deploy.POOLS:
            path = f"/work_pools/{pool}/workers/filter"
            self._await(f"worker-{pool}", lambda path=path: any(_online(self.server.ask("POST", path, {}))))

    def _start_services(self) -> None:
        hurried = ["--delay", "5"] if self.quick else []
        self._start("maintenance", [sys.executable, "-m", "infra.cli", "maintain", *hurried])
        for pool in deploy.POOLS:
            self.start_worker(pool)

    def down(self) -> None:
        """End everything; what is already gone is no error."""
        workers = [pid for name, pid in self.pids.items() if name.startswith("worker")]
        processes.stop(self.mark, first=workers)
        with contextlib.suppress(Exception):
            self.proxy.close()
        with contextlib.suppress(RuntimeError):
            self.database.stop()

    def start_azurite(self) -> None:
        self._start("azurite", azurite.command(self.blob_port, self.home / "azurite"))
        self._await("azurite", lambda: azurite.answers(self.blob_port))

    def start_server(self) -> None:
        """Start the server on the port that it had before."""
        command = ["prefect", "server", "start", "--host", ports.HOST, "--port", str(self.server_port)]
        self._start("server", [sys.executable, "-m", *command])
        self._await("server", lambda: self.server.ask("GET", "/health") is True)

    def start_worker(self, pool: str, host: str = "") -> None:
        """Start a worker of a pool. `host`: of another host, with a cache of its own, that reaches the store directly."""
        name = f"{pool}-{host}" if host else pool
        command = ["prefect", "worker", "start", "--type", "process", "--pool", pool, "--name", f"chaos-{name}"]
        command += deploy.worker_options(pool)
        direct = {"AZURE_STORAGE_CONNECTION_STRING": self.direct}
        other = direct | {"FABRATING_CACHE": str(self.cache(host)), "FABRATING_WORKER": host} if host else {}
        self._start(f"worker-{name}", [sys.executable, "-m", *command], other)

    def kill(self, name: str) -> None:
        """SIGKILL to a part and, as of a wrapper, to the children that are no runs."""
        pid = self.pids.pop(name)
        doomed = [pid]
        with contextlib.suppress(psutil.Error):
            doomed += [p.pid for p in psutil.Process(pid).children(recursive=True) if not name.startswith("worker")]
        for one in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        while processes.belongs(pid, self.mark):
            time.sleep(0.05)

    def resident(self, name: str) -> int:
        """Bytes of memory of a part and its children."""
        process = psutil.Process(self.pids[name])
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))

    def _start(self, name: str, command: list[str], other: Mapping[str, str] = MappingProxyType({})) -> None:
        log = self.home / "logs" / f"{name}.log"
        environment = self.environment | self.stack.private(name) | dict(other)
        self.pids[name] = processes.start(command, mark=self.mark, log=log, cwd=PROJECT, environment=environment)

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        if not ports.wait(ready, lambda: processes.belongs(self.pids[name], self.mark), START_SECONDS):
            raise InputError(f"{name} did not come up: see {self.home / 'logs' / (name + '.log')}.")


def _online(workers: list[dict[str, Any]] | None) -> Iterator[bool]:
    return (worker["status"] == "ONLINE" for worker in workers or [])


@contextlib.contextmanager
def rig(home: Path, say: Say, **options: Any) -> Iterator[Rig]:
    """The parts in `home` for as long as the block lasts; the folder is left for those who want to read the logs."""
    shutil.rmtree(home, ignore_errors=True)
    made = Rig(home, say, **options)
    try:
        made.up()
        yield made
    finally:
        made.down()
