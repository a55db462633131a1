"""Hosts to provision, on this machine: a real sshd each, in its own network, mount and process namespace.

A host sees this machine's files and writes to a disk of its own. It has an account `rented`, a home directory with a space in
its name on another small disk, and a network cable that can be cut, mended and slowed down. Its first process is sshd, or
systemd, which can be rebooted. Everything is gone when the lab is closed. Needs root. On network 0 are hosts that share this
machine's network, and with it the way to package indexes.
"""

import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from infra.local import ports
from tasks.hosts import provision
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.provision import Setup
from tasks.hosts.ssh import Remote
from tasks.spec import Host as Parameters

SSHD = "/usr/sbin/sshd"
USER = "rented"
PROJECT = Path(__file__).resolve().parents[2]
TOOLS = (SSHD, "ip", "unshare", "nsenter", "pivot_root", "ssh-keygen", "rsync")
SYSTEMD = {
    "systemd": "/lib/systemd/systemd",
    "dbus-user-session": "/usr/lib/systemd/user/dbus.socket",
    "libpam-systemd": "/usr/share/pam-configs/systemd",
    "polkitd": "/usr/bin/pkcheck",
    "sudo": "/usr/bin/sudo",
}
"""What a host with systemd needs, by Debian package."""
SECRET = {"WANDB_API_KEY": "it's $(no) `secret`\\", "AZURE_STORAGE_KEY": "a+/=="}
INDEX_SETTINGS = ("SSL_CERT_", "PIP_", "UV_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


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


def no_index() -> str | None:
    """Why no package index is within reach, or None."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--retries", "0"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, "--timeout", "10", "-d", folder, "idna"], capture_output=True, text=True)
    return f"no package index: {done.stderr.strip().splitlines()[-1]}" if done.returncode else None


def versions(pins: Iterable[str]) -> dict[str, str]:
    """Lines like those of a lock file as versions by normal name; other lines are left out."""
    found = (pin.partition("==") for pin in pins if "==" in pin)
    return {canonicalize_name(name): version for name, _, version in found}


def call(*command: str, check: bool = True) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=check)


def without_systemd() -> str | None:
    """Why no host can boot systemd here, or None."""
    missing = [name for name, path in SYSTEMD.items() if not Path(path).exists()]
    return f"{', '.join(missing)} not installed" if missing else None


def control_groups(name: str) -> list[Path]:
    """The control groups of a host, innermost first."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if top is None or not (top / name).is_dir():
        return []
    return sorted((top / name, *(path for path in (top / name).rglob("*") if path.is_dir())), reverse=True)


class Host:
    """One host of a lab. `key` is the private key file that its accounts accept; `systemd`: what its first process is."""

    def __init__(self, lab: "Lab", name: str, network: int, number: int, disk: str, systemd: bool):
        self.lab, self.name, self.disk, self.systemd = lab, name, disk, systemd
        self.folder = lab.folder / name
        self.folder.mkdir(mode=0o755)
        self.namespace = f"fb{os.getpid()}{name}"
        self.cable = f"v{os.getpid() % 100000}{name}"[:15]
        self.network = network
        self.address = f"{lab.prefix}.{network}.{10 + number}" if network else "127.0.0.1"
        self.port = 2200 + number if network else ports.choose(0)
        self.key = lab.key
        self.home = self.folder / f"home of {USER}"
        self.process: subprocess.Popen | None = None
        self.new_host_key()
        authorized = self.folder / "authorized_keys"
        shutil.copy(f"{lab.key}.pub", authorized)
        authorized.chmod(0o644)
        if network:
            self.connect()

    def connect(self) -> None:
        """Give the host a network of its own and a cable to its bridge."""
        call("ip", "netns", "add", self.namespace)
        call("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        call("ip", "link", "set", self.cable, "master", self.lab.bridge(self.network), "up")
        call("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        call("ip", "-n", self.namespace, "link", "set", "eth0", "up")

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
            "UsePAM": "yes" if self.systemd else "no",
            "StrictModes": "no",
            "PrintMotd": "no",
            "PidFile": "none",
            "MaxSessions": "50",
            "MaxStartups": "100",
            "AllowAgentForwarding": "yes",
        } | settings
        if self.network == 0:
            found = [f'"{name}={value}"' for name, value in os.environ.items() if name.startswith(INDEX_SETTINGS)]
            lines |= {"SetEnv": " ".join(found)} if found else {}
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def start(self) -> None:
        """Switch the host on and wait until its sshd answers. Its disk is empty then."""
        command = ["ip", "netns", "exec", self.namespace] if self.network else []
        command += ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["sh", str(Path(__file__).with_name("lab_disk.sh")), str(self.folder), self.disk, USER]
        command += [self.namespace, "systemd" if self.systemd else "sshd"]
        command += dict.fromkeys((sys.base_prefix, str(PROJECT), sys.prefix))
        log = (self.folder / "sshd.log").open("ab")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        self.wait()

    def wait(self) -> None:
        """Wait until its sshd answers."""
        for _ in range(200):
            seen = call("ssh-keyscan", "-T", "2", "-p", str(self.port), self.address, check=False)
            if seen.stdout:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {(self.folder / 'sshd.log').read_text()}")

    def reboot(self) -> None:
        """Let systemd end everything and boot again; what is on the disks stays."""
        before = self.first()
        self.run("systemctl reboot", user="root")
        end = time.monotonic() + 60
        while self.first() in (None, before) and time.monotonic() < end:
            time.sleep(0.1)
        self.wait()

    def first(self) -> str | None:
        """The process here that is number 1 on the host, None while there is none."""
        process = str(self.process.pid)
        with contextlib.suppress(OSError, IndexError):  # between two boots
            while Path(f"/proc/{process}/comm").read_text().strip() in ("ip", "unshare", "sh"):
                process = call("pgrep", "-P", process, check=False).stdout.split()[0]
            return process
        return None

    def stop(self) -> None:
        """Switch the host off: every process on it is killed."""
        if self.process is None:
            return
        first = self.first()
        self.process.kill()
        self.process.wait()
        self.process = None
        end = time.monotonic() + 5  # the kernel ends the rest in its own time
        while (Path(f"/proc/{first}").exists() or control_groups(self.namespace)) and time.monotonic() < end:
            for group in control_groups(self.namespace):
                with contextlib.suppress(OSError):
                    group.rmdir()
            time.sleep(0.02)

    def run(self, script: str, user: str = USER) -> str:
        """What a script prints that runs on the host, behind FabRating's back."""
        command = ["nsenter", "-t", str(self.first()), "-m", "-n", "-p", "-u", "-i", "-C", "runuser", "-u", user]
        command += ["--", "sh", "-c", f"cd; {script}"]
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
        if self.network:
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

    def host(self, name: str, network: int = 1, disk: str = "2g", systemd: bool = False, **sshd: str) -> Host:
        """A new host that runs, with these settings of its sshd."""
        made = Host(self, name, network, len(self.hosts), disk, systemd)
        self.hosts.append(made)
        made.write_config(**sshd)
        made.start()
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


def prepare(machine: Host, known: KnownHosts, wheel: Path, **changes: object) -> Setup:
    """A lab's host that was looked at, with secrets to bring there."""
    host = parameters(machine, **changes)
    remote = Remote(host, known)
    return Setup(host, remote, provision.look(remote, host), wheel, SECRET)


@contextlib.contextmanager
def healthy_api(address: str = "127.0.0.1") -> Iterator[str]:
    """The URL of an API that is healthy and can do nothing else."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer((address, 0), Health)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://{address}:{made.server_port}/api"
    made.shutdown()
