"""A Prefect server and the processes of its runs, as seen from outside; it may be away at times."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from infra.local import processes


@dataclass
class Server:
    """`api`: its URL. `mark`: what all processes of its stack carry. `password`: NAME:PASSWORD, which it asks for."""

    api: str
    mark: str
    password: str

    def ask(self, method: str, path: str, body: Any = None, patience: float = 0.0) -> Any:
        """One request; None when there is no answer for `patience` seconds. Raises RuntimeError when it is refused."""
        deadline = time.monotonic() + patience
        name, _, word = self.password.partition(":")
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                reply = httpx.request(method, self.api + path, json=body, auth=(name, word), timeout=10)
                if reply.is_success:
                    return reply.json() if reply.content else True
                if reply.status_code < 500:
                    raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:300]}")
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.5)

    def start(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Ask for a run of a deployment, as the UI's form does; its id."""
        found = self.ask("GET", f"/deployments/name/{deployment}", patience=60)
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        made: dict[str, str] = self.ask("POST", f"/deployments/{found['id']}/create_flow_run", body, patience=60)
        return made["id"]

    def processes_of(self, run: str) -> list[psutil.Process]:
        """The living processes of a flow run, the trainer's among them."""
        found = []
        for process in processes.members(self.mark):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run:
                    found.append(process)
        return found

    def trainer(self, run: str) -> list[psutil.Process]:
        """The trainer's processes of a flow run."""
        return [process for process in self.processes_of(run) if "tasks.engines.builtin" in _command(process)]

    def flow_process(self, run: str) -> list[psutil.Process]:
        """The processes of a flow run's own code: all but its trainer."""
        trainers = {process.pid for process in self.trainer(run)}
        return [process for process in self.processes_of(run) if process.pid not in trainers]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
