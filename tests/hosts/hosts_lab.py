"""Hosts to provision, on this machine: a real sshd each, in its own network, mount and process namespace.

A host has an account `rented` without root rights, a home directory with a space in its name on a small disk of its own,
and a network cable that can be cut, mended and slowed down. Everything is gone when the lab is closed. Needs root.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.spec import Host as Parameters

SSHD = "/usr/sbin/sshd"
USER = "rented"
PROJECT = Path(__file__).resolve().parents[2]
TOOLS = (SSHD, "ip", "unshare", "nsenter", "ssh-keygen", "rsync")


def unable() -> str | None:
    """Why no lab can be set up here, or None."""
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")]
    if os.geteuid() != 0:
        return "hosts in network namespaces need root"
    if missing:
        return f"{', '.join(missing)} not installed (openssh-server, iproute2, util-linux, rsync)"
    probe = subprocess.run(["ip", "netns", "add", f"fb-probe-{os.getpid()}"], capture_output=True, text=True)
    if probe.returncode != 0:
        return f"no network namespaces here: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", f"fb-probe-{os.getpid()}"], check=False)
    return None


def call(*command: str, check: bool = True) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=check)


def closed(folder: Path) -> Path | None:
    """The first folder above that other accounts may not enter."""
    return next((one for one in reversed(folder.parents) if not one.stat().st_mode & stat.S_IXOTH), None)


INIT = r"""
set -e
lab=$1 size=$2 user=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd
for file in passwd group shadow; do
    cp /etc/$file "$lab/$file"
done
echo "$user:x:4242:4242::$lab/home of $user:/bin/bash" >>"$lab/passwd"
echo "$user:x:4242:" >>"$lab/group"
echo "$user:*:19000:0:99999:7:::" >>"$lab/shadow"
for file in passwd group shadow; do
    mount --bind "$lab/$file" /etc/$file
done
mkdir -p "$lab/home of $user"
mount -t tmpfs -o "size=$size,mode=700,uid=4242,gid=4242" home "$lab/home of $user"
# What lies below a folder that is closed to other accounts (a Python below /root) is out of the account's reach: of such
# a folder only what is asked for is shown. Arguments: closed folder, shown folder, ...
show() {
    number=0
    while [ $# -gt 0 ]; do
        number=$((number + 1))
        "$action" "$1" "$2" "$lab/shown/$number"
        shift 2
    done
}
keep() {
    mkdir -p "$3" && mount --bind "$2" "$3"
}
reveal() {
    [ -e "$1/.closed" ] || { mount -t tmpfs -o mode=755 closed "$1" && touch "$1/.closed"; }
    mkdir -p "$2" && mount --bind "$3" "$2"
}
action=keep; show "$@"
action=reveal; show "$@"
ip link set lo up
exec /usr/sbin/sshd -D -e -f "$lab/sshd_config" 2>>"$lab/sshd.log"
"""


class Host:
    """One host of a lab. `key` is the private key file that its account accepts."""

    def __init__(self, lab: "Lab", name: str, network: int, number: int, disk: str):
        self.lab, self.name, self.disk = lab, name, disk
        self.folder = lab.folder / name
        self.folder.mkdir(mode=0o755)
        self.namespace = f"fb{os.getpid()}{name}"
        self.cable = f"v{os.getpid() % 100000}{name}"[:15]
        self.network = network
        self.address = f"{lab.prefix}.{network}.{10 + number}"
        self.port = 2200 + number
        self.key = lab.key
        self.home = self.folder / f"home of {USER}"
        self.process: subprocess.Popen | None = None
        self.new_host_key()
        authorized = self.folder / "authorized_keys"
        shutil.copy(f"{lab.key}.pub", authorized)
        authorized.chmod(0o644)
        self.write_config()
        call("ip", "netns", "add", self.namespace)
        call("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        call("ip", "link", "set", self.cable, "master", lab.bridge(network), "up")
        call("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        call("ip", "-n", self.namespace, "link", "set", "eth0", "up")
        self.start()

    def new_host_key(self) -> str:
        """Give the host another identity; its fingerprint."""
        path = self.folder / "host_key"
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        return self.fingerprint

    @property
    def fingerprint(self) -> str:
        return call("ssh-keygen", "-lf", str(self.folder / "host_key.pub")).stdout.split()[1]

    def write_config(self, **settings: str) -> None:
        """sshd's configuration; it is read when the host starts."""
        lines = {
            "Port": str(self.port),
            "ListenAddress": self.address,
            "HostKey": str(self.folder / "host_key"),
            "AuthorizedKeysFile": str(self.folder / "authorized_keys") + " .ssh/authorized_keys",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "PrintMotd": "no",
            "PidFile": "none",
            "MaxSessions": "50",
            "MaxStartups": "100",
            "AllowAgentForwarding": "yes",
        } | settings
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def start(self) -> None:
        """Switch the host on and wait until its sshd answers. Its disk is empty then."""
        command = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["--mount-proc", "sh", "-c", INIT, "init", str(self.folder), self.disk, USER]
        for folder in dict.fromkeys((sys.base_prefix, str(PROJECT), sys.prefix)):
            if above := closed(Path(folder)):
                command += [str(above), folder]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(100):
            seen = call("ssh-keyscan", "-T", "2", "-p", str(self.port), self.address, check=False)
            if seen.stdout:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {(self.folder / 'sshd.log').read_text()}")

    def stop(self) -> None:
        """Switch the host off: every process on it is killed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(self, script: str, user: str = USER) -> str:
        """What a script prints that runs on the host, behind FabRating's back."""
        inner = call("pgrep", "-P", str(self.process.pid), check=False).stdout.split()[0]
        command = ["nsenter", "-t", inner, "-m", "-n", "-p", "runuser", "-u", user, "--", "sh", "-c", f"cd; {script}"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {script!r} ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def cut(self) -> None:
        """Pull the network cable."""
        call("ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        """Plug it in again."""
        call("ip", "link", "set", self.cable, "up")

    def slow(self, megabits: int) -> None:
        """Limit what the host sends and receives to a rate in megabit/s."""
        shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "256kb", "latency", "100ms"]
        call("tc", "qdisc", "replace", "dev", self.cable, *shape)
        call("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", *shape)

    def close(self) -> None:
        self.stop()
        call("ip", "link", "del", self.cable, check=False)
        call("ip", "netns", "del", self.namespace, check=False)


class Lab:
    """Hosts on bridges of this machine. Hosts on different networks reach this machine, but not each other."""

    def __init__(self) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="fabrating-lab-")
        )  # pytest's own folders are closed to other accounts
        taken = call("ip", "-o", "addr").stdout  # by labs of other test sessions on this machine
        numbers = (200 + (os.getpid() + i) % 50 for i in range(50))
        self.prefix = next(f"10.{number}" for number in numbers if f" 10.{number}." not in taken)
        self.hosts: list[Host] = []
        self.bridges: dict[int, str] = {}
        self.key = self.folder / "client_key"
        self.folder.chmod(0o755)
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.key))

    def bridge(self, network: int) -> str:
        if network not in self.bridges:
            name = f"b{os.getpid() % 100000}n{network}"
            call("ip", "link", "add", name, "type", "bridge")
            call("ip", "addr", "add", f"{self.prefix}.{network}.1/24", "dev", name)
            call("ip", "link", "set", name, "up")
            self.bridges[network] = name
        return self.bridges[network]

    def host(self, name: str, network: int = 1, disk: str = "2g") -> Host:
        """A new host that runs."""
        made = Host(self, name, network, len(self.hosts), disk)
        self.hosts.append(made)
        return made

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        for name in self.bridges.values():
            call("ip", "link", "del", name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parameters(machine: Host, **changes: object) -> Parameters:
    """Parameters of a lab's host: CPU, with the environment of the tests as the prepared one."""
    fields = {
        "name": machine.name,
        "address": machine.address,
        "port": machine.port,
        "user": USER,
        "key_file": str(machine.key),
        "gpus": 0,
        "folder": "fab rating",
        "python_environment": sys.prefix,
    }
    return Parameters(**{**fields, **changes})
