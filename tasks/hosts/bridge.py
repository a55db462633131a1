"""How one host's rsync gets to another: with a key that lives for one transfer, and never on a host.

The key pair is made here. Its private half is in the memory of an ssh-agent of our own that is forwarded to the source;
its public half is in the target's authorized_keys, restricted (no forwarding, no terminal), with an expiry, and removed at
the end. The source trusts exactly the target's host key that is pinned here.
"""

import contextlib
import os
import random
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import InputError
from tasks.hosts.machine import CommandError, LinkError
from tasks.hosts.route import bracketed, ssh_environment, ssh_options
from tasks.hosts.ssh import Remote
from tasks.hosts.streams import FAST_SSH, rsync_shell

HOURS = 24
MARK = "fabrating-transfer"
REWRITE = r"""
umask 077
mkdir -p "$HOME/.ssh" || exit
file=$(readlink -f "$HOME/.ssh/authorized_keys") || exit
if command -v flock >/dev/null 2>&1; then
    exec 9>>"$HOME/.ssh/.fabrating.lock" && flock -w 40 9 || exit
fi
new=$(mktemp "$file.XXXXXX") || exit
trap 'rm -f "$new"' EXIT
[ ! -e "$file" ] || cp -p "$file" "$new" || exit
lines() { grep -c '' "$1"; }
replace() { # $1: lines that the new file must have
    if [ "$(lines "$new")" != "$1" ]; then
        echo "$file is left as it is: its new version could not be written whole" >&2
        exit 1
    fi
    { sync "$new" 2>/dev/null || sync; } && mv -f "$new" "$file"
}
"""
"""Changes of authorized_keys, the owner's way in: under a lock, on a copy that is counted and synced before it takes the place.
On any error the file stays as it is."""
ADMIT = f"""{REWRITE}
[ ! -s "$new" ] || [ -z "$(tail -c 1 "$new")" ] || echo >>"$new" || exit
before=$(lines "$new")
printf '%s\\n' "$1" >>"$new" || exit
replace $((before + 1))"""
FORGET = f"""{REWRITE}
[ -e "$file" ] || exit 0
ours=$(grep -cF -- "$1" "$file")
[ "$ours" != 0 ] || exit 0
grep -vF -- "$1" "$file" >"$new" || [ $? = 1 ] || exit
replace $(($(lines "$file") - ours))"""


@dataclass(frozen=True)
class Bridge:
    """A way from a source host to a target host. `relayed`: the bytes pass through this machine, still encrypted end to end."""

    source: Remote
    target: Remote
    environment: dict[str, str]
    agent: str
    known_hosts: str
    relayed: bool

    def command(self, inner: Sequence[str]) -> list[str]:
        """What to start here so that `inner` runs on the source with a way to the target.

        In its words `{ssh}` stands for the ssh command there, `{shell}` for that command as rsync takes it, `{login}` and
        `{target}` for user@address as ssh and as rsync take it.
        """
        route, target = self.source.route, self.target.route
        ssh = ["ssh", "-T", *ssh_options(route, self.source.known), "-o", f"ForwardAgent={self.agent}"]
        port, address = target.port, target.address
        if self.relayed:
            free = random.randint(20_000, 60_000)  # taken already: the stream fails and is started again on another
            ssh += ["-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{free}:{bracketed(address)}:{port}"]
            address, port = "127.0.0.1", free
        there = ["ssh", *self.inner_options(), "-p", str(port)]
        names = {"{ssh}": shlex.join(there), "{shell}": rsync_shell(there), "{login}": f"{target.user}@{address}"}
        names["{target}"] = f"{target.user}@{bracketed(address)}"
        words = list(inner)
        for name, value in names.items():
            words = [word.replace(name, value) for word in words]
        return [*ssh, route.login, shlex.join(words)]

    def inner_options(self) -> list[str]:
        """Options of the ssh that runs on the source: it trusts one host and asks nobody."""
        target = self.target.route
        return [
            *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "-F", "none"),
            *("-o", f"HostKeyAlias={self.source.known.name(target.name, target.port)}", *FAST_SSH),
        ]


@contextlib.contextmanager
def bridge(source: Remote, target: Remote) -> Iterator[Bridge]:
    """A way between two hosts for as long as the block lasts: direct when the source reaches the target, else relayed.

    Raises InputError when neither works, as where the source's sshd forbids agent forwarding.
    """
    source.connect(), target.connect()
    with _agent() as (agent, environment, public), _trust(source, target) as known_hosts, _admitted(target, public):
        seen = []
        if source.route.key_file is None and "SSH_AUTH_SOCK" in os.environ:
            # Logging in to the source takes a person's agent; ssh forwards no agent where this variable names none.
            environment = ssh_environment()
        for relayed in (False, True):
            made = Bridge(source, target, environment, agent, known_hosts, relayed)
            done = subprocess.run(
                made.command(["sh", "-c", '{ssh} "$1" rsync --version', "sh", "{login}"]),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
            if done.returncode == 0:
                yield made
                return
            seen.append((done.stderr.strip().splitlines() or ["no reason given"])[-1])
        raise InputError(
            f"{source.host.name} reaches {target.host.name} neither directly ({seen[0]}) nor through this machine ({seen[1]}): "
            "allow agent forwarding (AllowAgentForwarding) in its sshd, and check that rsync is on both."
        )


@contextlib.contextmanager
def _agent() -> Iterator[tuple[str, dict[str, str], str]]:
    """An ssh-agent of our own with a new key: (socket, environment for ssh here, public key)."""
    with tempfile.TemporaryDirectory(prefix="fabrating-") as folder:
        key, socket = Path(folder) / "key", str(Path(folder) / "agent")
        name = f"{MARK}-{os.urandom(8).hex()}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", socket],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 10
            while not Path(socket).exists() and time.monotonic() < end:
                time.sleep(0.02)
            ours = ssh_environment() | {"SSH_AUTH_SOCK": socket}
            subprocess.run(
                ["ssh-add", "-q", "-t", f"{HOURS}h", str(key)],
                env=ours,
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
            public = key.with_suffix(".pub").read_text().strip()
            key.unlink()
            yield socket, ours, public
        finally:
            agent.terminate()
            agent.wait()


@contextlib.contextmanager
def _trust(source: Remote, target: Remote) -> Iterator[str]:
    """A file on the source with the target's pinned key."""
    key = source.known.pinned(target.route.name, target.route.port)
    name = source.known.name(target.route.name, target.route.port)
    path = source.run('mktemp "${TMPDIR:-/tmp}/fabrating-known.XXXXXX"').out.strip()
    source.put(f"{name} {key.get_name()} {key.get_base64()}\n", path)
    try:
        yield path
    finally:
        _at_last(source, 'rm -f "$1"', path)


@contextlib.contextmanager
def _admitted(target: Remote, public: str) -> Iterator[None]:
    """The public key in the target's authorized_keys."""
    # sshd reads the expiry in the target's own time zone: a day is more than any two zones differ by.
    expiry = time.strftime("%Y%m%d%H%M", time.gmtime(time.time() + HOURS * 3600))
    target.run(ADMIT, f'restrict,expiry-time="{expiry}" {public}')
    try:
        yield
    finally:
        _at_last(target, FORGET, public.split()[1])


def _at_last(machine: Remote, script: str, *args: str) -> None:
    """Clean up on a host that may be out of reach for a moment."""
    for attempt in range(5):
        try:
            machine.run(script, *args)
            return
        except (LinkError, CommandError):
            if attempt == 4:
                raise
            time.sleep(2 * (attempt + 1))
