"""The Prefect server and the local stack: does it answer, do the work pools have workers."""

import os
import re
import shlex
import ssl
from typing import Any

import httpx

from infra.doctor.finding import Finding
from infra.local import access, deploy
from infra.local.stack import Stack, server_environment

OPEN = "make up, where it is this machine's stack; else set PREFECT_SERVER_API_AUTH_STRING for the server"
HOSTS = {"cpu": "make up", "gpu": "make up, or run provision/gpu-host for a rented one"}


def look(stack: Stack | None) -> list[Finding]:
    """The processes of a local stack that runs, and the server that this shell or else that stack names."""
    stack = stack if stack is not None and stack.alive("server") else None
    environment = server_environment(stack)
    findings = _processes(stack) if stack else []
    if not environment:
        return [*findings, Finding("Prefect", "note", "no server runs here and none is named", "make up")]
    if stack and any(os.environ.get(name) != value for name, value in environment.items()):
        remedy = f". {shlex.quote(str(stack.home / 'env'))}"
        findings.append(Finding("this shell", "note", "`prefect` does not know of the local stack", remedy))
    if access.is_open(environment[access.URL]):
        findings.append(
            Finding("password", "note", "the server asks nobody for one: who reaches it runs commands", OPEN)
        )
    return [*findings, *_server(environment)]


def _processes(stack: Stack) -> list[Finding]:
    names = (*stack.parts, *(["azurite"] if stack.azurite_port else []))
    return [
        Finding(name, "good", f"process {stack.pids[name]}")
        if stack.alive(name)
        else Finding(name, "bad", f"gone; its log: {stack.home / 'logs' / name}.log", "make up")
        for name in names
    ]


def _server(environment: dict[str, str]) -> list[Finding]:
    """What answers at the API's URL, asked with its password: version, deployments, and the workers of each pool."""
    from prefect import __version__
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    api = environment[access.URL]
    shown = re.sub(r"//[^/@]*@", "//", api)  # a password may stand before the host
    hurried = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
    try:
        # asked first without Prefect's client, which waits for as long as a proxy says that the server is away
        verify = ssl.create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value() or None)
        if httpx.get(f"{api}/health", timeout=10, verify=verify).is_server_error:
            raise ConnectionError("the server behind the proxy is away")
        with access.connected(environment), temporary_settings(hurried), get_client(sync_client=True) as client:
            version, deployments = client.api_version(), len(client.read_deployments())
            pools = [_pool(client, name) for name in deploy.POOLS] if deployments else []
    except Exception as error:  # Prefect's client and httpx have many; each means that it cannot be worked with
        denied = "401" in str(error) or "403" in str(error)
        found = f"{shown} {'refuses us' if denied else 'does not answer'} ({type(error).__name__})"
        remedy = (
            "set PREFECT_API_AUTH_STRING, here or in .env, to the server's password"
            if denied
            else "make up, or check PREFECT_API_URL"
        )
        return [Finding("Prefect", "bad", found, remedy)]
    found = f"{shown}, version {version}, {deployments} deployments"
    if version != __version__:
        remedy = "install the same version on both: requirements.lock names it"
        return [Finding("Prefect", "note", f"{found}; here it is {__version__}", remedy), *pools]
    if not deployments:
        return [Finding("Prefect", "bad", found, "fabrating deploy")]
    return [Finding("Prefect", "good", found), *pools]


def _pool(client: Any, name: str) -> Finding:
    from prefect.exceptions import ObjectNotFound

    try:
        pool, workers = client.read_work_pool(name), client.read_workers_for_work_pool(name)
    except ObjectNotFound:
        return Finding(f"pool {name}", "bad", "is not on the server", "fabrating deploy")
    online = sorted(worker.name for worker in workers if worker.status == "ONLINE")
    if pool.is_paused:
        return Finding(f"pool {name}", "bad", "is paused: nothing starts", f"prefect work-pool resume {name}")
    if wrong := deploy.wrong_with(client, name):
        return Finding(f"pool {name}", "bad", wrong, "fabrating deploy; of this machine's stack, make up")
    if not online:
        return Finding(f"pool {name}", "bad" if name == "cpu" else "note", "no worker is online", HOSTS[name])
    return Finding(f"pool {name}", "good", f"online: {', '.join(online)}")
