"""Services: the Prefect worker on a host, and the tunnel that leads from there back to the server.

systemd keeps them running where there is one (a unit of the system, or of a user who may linger), else the supervisor of
`tasks/hosts/scripts`.
A service is installed anew only when its `recipe` differs from the one in `NAME.recipe` beside it, or when it is down.
"""

import getpass
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

from tasks.errors import InputError
from tasks.hosts.facts import Facts, identify, script
from tasks.hosts.hostkeys import KnownHosts, installation_folder
from tasks.hosts.keys import encrypted
from tasks.hosts.machine import Local, Machine
from tasks.hosts.route import Route, bracketed, ssh_options
from tasks.records.devices import runs_at_once
from tasks.spec import Host
from tasks.store import azure
from tasks.store.artifact import fingerprint

SECRETS = (
    *azure.VARIABLES,
    "AWS_SKIP_SIGNATURE",
    "GOOGLE_SKIP_SIGNATURE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "FABRATING_SOURCE",
    "HF_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_MODE",
    "WANDB_DISABLED",
)
"""Variables of the environment here that a worker gets when they are set."""

HERE = Local()
HEARTBEAT_SECONDS = 30
SERVICE_SECONDS = 60


def environment_file(values: Mapping[str, str]) -> str:
    """Lines that a POSIX shell reads back exactly, whatever is in the values."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The secrets that are set here; a carriage return at an end (a .env file from Windows) is no part of one."""
    return {name: value.strip("\r\n") for name in SECRETS if (value := environment.get(name, "").strip("\r\n"))}


def loopback(url: str) -> bool:
    """Whether a URL's host is this machine's loopback."""
    name = urlparse(url).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")


def server_seen_from_host(host: Host) -> str:
    """The Prefect API's URL as the worker uses it. Raises InputError when it would send secrets in the clear."""
    parsed = urlparse(host.server)
    if host.way_back == "tunnel":
        if parsed.scheme == "https" and not loopback(host.server):
            raise InputError(f"server {host.server} is reached by HTTPS: set way_back=direct, no tunnel is needed.")
        return f"http://127.0.0.1:{host.tunnel_port}{parsed.path.rstrip('/') or '/api'}"
    if parsed.scheme == "http" and not loopback(host.server):
        raise InputError(
            f"server {host.server} would carry secrets unencrypted: give an https URL, or set way_back=tunnel."
        )
    return host.server


def check_tunnel_key(host: Host) -> None:
    """Raise InputError for a key that the tunnel's service could not open: nobody is there to give the passphrase."""
    key_file = Route.to(host).key_file
    if (
        host.way_back == "tunnel"
        and key_file is not None
        and Path(key_file).expanduser().is_file()
        and encrypted(key_file)
    ):
        raise InputError(
            f"The key file {key_file} of {host.name} has a passphrase, and the tunnel's service has nobody to ask: give a key "
            "without one, or set way_back=direct."
        )


def worker_environment(host: Host, facts: Facts, code: str) -> dict[str, str]:
    """Variables of the worker and of its runs; `code` is the folder that holds our packages on the host."""
    values = {
        "FABRATING_HOME": facts.folder,
        "FABRATING_CODE": code,
        "FABRATING_POOL": host.work_pool,
        "FABRATING_RUNS": str(runs_at_once(len(facts.gpus))),
        "FABRATING_TUNNEL": str(host.tunnel_port) if host.way_back == "tunnel" else "",
        "FABRATING_WORKER": host.name,
        "FABRATING_ROOT": host.root or f"{facts.folder}/root",
        "FABRATING_CACHE": f"{facts.folder}/cache",
        "PREFECT_API_URL": server_seen_from_host(host),
        "PREFECT_HOME": f"{facts.folder}/prefect",
        "TMPDIR": f"{facts.folder}/tmp",  # Prefect's folder in /tmp belongs to the first account that used it
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_CLIENT_MAX_RETRIES": "20",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504",  # what the server says while its database is away
    }
    if "nanochat" in host.engines:
        values["FABRATING_NANOCHAT_HOME"] = f"{facts.folder}/nanochat"
    return values


@dataclass(frozen=True)
class Service:
    """One service on one machine: its name, its folder there, its command, and what it depends on (`recipe`)."""

    machine: Machine
    facts: Facts
    name: str
    title: str
    folder: str
    python: str
    command: Sequence[str]
    recipe: str

    def installed(self) -> bool:
        """Whether it runs and was installed from the same recipe."""
        return self.machine.read(f"{self.folder}/{self.name}.recipe") == self.recipe and self.running()

    def running(self) -> bool:
        """Whether it runs now."""
        return self._call("status", check=False).status == 0

    def install(self) -> str:
        """Install and start it, or start it anew."""
        supervisor = script("supervise.py")
        if self.facts.services == "supervised":
            self.machine.put(supervisor, f"{self.folder}/supervise.py")
        else:
            self.machine.put(self.unit(), f"{self.folder}/{self.name}.service", 0o644)
        self._call("install", *self.command)
        self.machine.put(self.recipe, f"{self.folder}/{self.name}.recipe")
        kinds = {"system": "a systemd unit", "user": "a user's systemd unit", "supervised": "a supervised process"}
        return f"{self.name} runs as {kinds[self.facts.services]}"

    def remove(self) -> None:
        """Stop it and take its unit away; nothing to do when it was not there."""
        self._call("stop")
        self.machine.run('rm -f "$1.recipe" "$1.service" "$1.log" "$1.lock"', f"{self.folder}/{self.name}")

    def log(self) -> str:
        """The last error in its log, else its last line, for messages."""
        text = self._call("log", check=False).out
        lines = [line.strip() for line in text.splitlines() if line.strip() and " ended with status " not in line]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or ["its log is empty"])[-1][:300]

    def unit(self) -> str:
        """The systemd unit."""
        system = self.facts.services == "system"
        fields = {
            "TITLE": self.title,
            "USER": f"User={self.facts.user}" if system else "",
            "COMMAND": ":" + " ".join(_unit_word(word) for word in self.command),
            "TARGET": "multi-user.target" if system else "default.target",
        }
        text = script("unit.service")
        for name, value in fields.items():
            text = text.replace(f"@{name}@", value)
        return text

    def _call(self, action: str, *command: str, check: bool = True):
        facts = self.facts
        arguments = [action, facts.services, self.name, self.folder, self.python, facts.privilege, *command]
        return self.machine.run(script("service.sh"), *arguments, timeout=SERVICE_SECONDS, check=check)


def worker(machine: Machine, host: Host, facts: Facts, recipe: str) -> Service:
    """The worker's service on a host."""
    folder = facts.folder
    return Service(
        machine,
        facts,
        name="fabrating-worker" if folder == f"{facts.home}/fabrating" else f"fabrating-worker-{fingerprint(folder)}",
        title=f"Prefect worker {host.name}",
        folder=folder,
        python=f"{folder}/venv/bin/python",
        command=["/bin/sh", f"{folder}/worker.sh"],  # systemd takes a quote in an argument, in a program's name none
        recipe=recipe,
    )


def tunnel(host: Host, far_folder: str, known: KnownHosts) -> Service:
    """The tunnel's service on this machine: it opens the server's port on the loopback of the host, where `far_folder` is ours."""
    parsed = urlparse(host.server)
    folder = installation_folder() / "tunnels" / host.name
    server = f"{bracketed(parsed.hostname or '')}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"
    route = Route.to(host)
    ssh = ["ssh", "-T", *ssh_options(route, known), route.login]
    far = shlex.quote(f"{far_folder}/tunnel-far.sh")
    command = ["/bin/sh", str(folder / "tunnel.sh"), str(host.tunnel_port), server, far, *ssh]
    return Service(
        HERE,
        _here(),
        name=f"fabrating-tunnel-{host.name}",
        title=f"tunnel from {host.name} to the Prefect server",
        folder=str(folder),
        python=sys.executable,
        command=command,
        recipe=fingerprint(command, getpass.getuser(), script("tunnel.sh"), script("tunnel-far.sh")),
    )


@cache
def _here() -> Facts:
    """What this machine is: looked at once."""
    return identify(HERE, str(installation_folder()))


def install_tunnel(service: Service, machine: Machine, facts: Facts) -> str:
    """Put both ends of the tunnel in place and start it."""
    machine.put(script("tunnel-far.sh"), f"{facts.folder}/tunnel-far.sh")
    Path(service.folder).mkdir(parents=True, exist_ok=True)
    service.machine.put(script("tunnel.sh"), f"{service.folder}/tunnel.sh", 0o700)
    return service.install()


def _unit_word(word: str) -> str:
    """A word of ExecStart, quoted; `%` is systemd's own, `$` is literal after the `:` before the command."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
