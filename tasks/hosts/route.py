"""One way to reach a host: what both paramiko, which looks, and OpenSSH's client, which carries, are told.

Of the person's `~/.ssh/config` both take HostName, Port, User, IdentityFile, ProxyJump and ProxyCommand, and nothing else: a
RequestTTY, RemoteCommand or LocalForward there is for logins by hand.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import InputError
from tasks.hosts.hostkeys import KnownHosts, installation_folder
from tasks.hosts.keys import PASSPHRASE, encrypted, load_key, prepared_key
from tasks.spec import Host
from tasks.store.artifact import write_atomic

CONNECT_SECONDS = 15
ASKED = "#!/bin/sh\nprintf '%s\\n' \"$FABRATING_SSH_PASSPHRASE\"\n"
"""What ssh starts to ask for a passphrase."""


@dataclass(frozen=True)
class Route:
    """Where a host's SSH server is, who logs in, and how: `name` is what the host is pinned under, `proxy` a command or None."""

    name: str
    address: str
    port: int
    user: str
    key_file: str | None
    proxy: str | None

    @classmethod
    def to(cls, host: Host, config: Path | None = None) -> "Route":
        """The route to a host. A port, user or key that the host's parameters do not give comes from the config.

        Raises InputError when OpenSSH's client cannot read the config.
        """
        config = config or Path("~/.ssh/config").expanduser()
        said = _settings(str(config), host.address) if config.is_file() else {}
        plain = _settings("none", host.address) if said else {}
        own = {name: values for name, values in said.items() if values != plain.get(name)}

        def first(name: str) -> str | None:
            return own[name][0] if name in own and own[name][0] != "none" else None

        address = first("hostname") or host.address
        port = host.port or int(first("port") or 22)
        user = host.user or first("user") or "root"
        keys = [key for key in own.get("identityfile", ()) if _loads(key)]
        key_file = host.key_file or (keys[0] if keys else None)
        proxy = first("proxycommand")
        if jump := first("proxyjump"):
            proxy = _jump(str(config), jump)
        if proxy is not None:
            for mark, value in {"%h": address, "%p": str(port), "%r": user}.items():
                proxy = proxy.replace(mark, value)
        return cls(host.address, address, port, user, key_file, proxy)

    @property
    def login(self) -> str:
        """`user@address`, as ssh takes it."""
        return f"{self.user}@{self.address}"

    @property
    def place(self) -> str:
        """`user@address` with the brackets that rsync and forwardings need for IPv6."""
        return f"{self.user}@{bracketed(self.address)}"


def bracketed(address: str) -> str:
    """An address as it stands before a colon and a port or path."""
    return f"[{address}]" if ":" in address else address


def _settings(config: str, address: str) -> dict[str, list[str]]:
    done = subprocess.run(
        ["ssh", "-G", "-F", config, "--", address], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"ssh cannot read {config} for {address} ({said}): correct that file.")
    found: dict[str, list[str]] = {}
    for name, _, value in (line.partition(" ") for line in done.stdout.splitlines()):
        found.setdefault(name, []).append(value)
    return found


def _jump(config: str, jump: str) -> str:
    """A command that leads through the hosts of a ProxyJump, each as the person's own config reaches it."""
    *before, last = jump.split(",")
    through = ["-J", ",".join(before)] if before else []
    last = last if last.startswith("ssh://") else f"ssh://{last}"
    settings = ("LogLevel=ERROR", "BatchMode=yes", "ClearAllForwardings=yes", "RemoteCommand=none", "RequestTTY=no")
    options = [part for setting in settings for part in ("-o", setting)]
    return f"{shlex.join(['ssh', '-F', config, *options, *through])} -W [%h]:%p {shlex.quote(last)}"


def _loads(path: str) -> bool:
    try:
        return bool(load_key(path))
    except InputError:
        return False  # one of several, or its passphrase is with ssh-agent


def ssh_options(route: Route, known: KnownHosts) -> list[str]:
    """Options of OpenSSH's client that trust exactly whom we trust and ask nobody: a passphrase comes from `ssh_environment`."""
    asks = route.key_file is not None and encrypted(route.key_file) and bool(os.environ.get(PASSPHRASE))
    options = {
        "BatchMode": "no" if asks else "yes",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": known.name(route.name, route.port),
        "UserKnownHostsFile": f'"{known.path}"',
        "GlobalKnownHostsFile": "/dev/null",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    if route.proxy:
        options["ProxyCommand"] = route.proxy.replace("%", "%%")
    command = ["-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    if route.key_file:
        command += ["-o", "IdentitiesOnly=yes", "-i", str(prepared_key(route.key_file))]
    return [*command, "-p", str(route.port)]


def ssh_environment() -> dict[str, str]:
    """The environment of an ssh that is started here: where the passphrase is set, it asks a script of ours for it."""
    if not os.environ.get(PASSPHRASE):
        return dict(os.environ)
    asked = installation_folder() / "passphrase.sh"
    if not asked.is_file():
        asked.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(asked, ASKED)
    asked.chmod(0o700)
    return os.environ | {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
