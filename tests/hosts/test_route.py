"""One way to a host: what of the person's settings and keys counts, the same for paramiko and for OpenSSH."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.keys import PASSPHRASE, prepared_key
from tasks.hosts.machine import LinkError, Local
from tasks.hosts.route import Route, ssh_environment, ssh_options
from tasks.hosts.ssh import Remote
from tasks.hosts.transfer import Place, place, transfer
from tasks.spec import Host
from tests.hosts.lab import USER, Lab, call, parameters
from tests.hosts.lab import Host as Machine

CONFIG = """
Host rented-gpu
  HostName {address}
  Port {port}
  User {user}
  IdentityFile "{key}"
  RequestTTY force
  RemoteCommand echo hijacked
  LocalForward 4200 127.0.0.1:4200
Host behind
  HostName {address}
  Port {port}
  User {user}
  ProxyJump rented-gpu
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder with an SSH configuration to fill in."""
    folder = tmp_path / "a home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_few_settings_of_the_config_count(home: Path) -> None:
    plain = Route.to(Host(address="rented-gpu"))
    assert plain == Route("rented-gpu", "rented-gpu", 22, "root", None, None)
    key = home / "key"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    (home / ".ssh/config").write_text(CONFIG.format(address="192.0.2.7", port=40022, user="ubuntu", key=key))
    assert Route.to(Host(address="rented-gpu")) == Route("rented-gpu", "192.0.2.7", 40022, "ubuntu", str(key), None)
    assert Route.to(Host(address="rented-gpu", user="root", port=22)).login == "root@192.0.2.7"
    given = Route.to(Host(address="rented-gpu", port=23, user="other", key_file="/mine"))
    assert (given.port, given.user, given.key_file) == (23, "other", "/mine")
    proxy = Route.to(Host(address="behind")).proxy
    assert proxy is not None and proxy.endswith(" -W [192.0.2.7]:40022 ssh://rented-gpu")
    (home / ".ssh/config").write_text("Nonsense yes\n")
    with pytest.raises(InputError, match=r"ssh cannot read .*config for x .*: correct that file"):
        Route.to(Host(address="x"))


def test_an_address_of_ipv6_has_brackets_where_a_colon_follows() -> None:
    route = Route.to(Host(address="fd00::1", user="me"))
    assert (route.login, route.place) == ("me@fd00::1", "me@[fd00::1]")


def test_a_key_file_as_a_download_leaves_it_is_taken(machine: Machine, known: KnownHosts, tmp_path: Path) -> None:
    key = tmp_path / "from a mail.pem"
    key.write_bytes(machine.key.read_bytes().replace(b"\n", b"\r\n").rstrip())
    key.chmod(0o644)
    reached(parameters(machine, key_file=str(key)), known)
    assert prepared_key(str(key)).stat().st_mode & 0o777 == 0o600
    assert prepared_key(str(machine.key)) == machine.key


def test_a_passphrase_reaches_ssh(
    machine: Machine, known: KnownHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "locked"
    key.write_bytes(machine.key.read_bytes())
    key.chmod(0o600)
    call("ssh-keygen", "-q", "-p", "-N", "it's a $ecret", "-P", "", "-f", str(key))
    monkeypatch.setenv(PASSPHRASE, "it's a $ecret")
    reached(parameters(machine, key_file=str(key)), known)
    monkeypatch.setenv(PASSPHRASE, "another")
    with pytest.raises(InputError, match=r"locked cannot be read as a private key|locked is encrypted"):
        reached(parameters(machine, key_file=str(key)), known)


@pytest.mark.slow
def test_an_alias_and_a_jump_through_it(lab: Lab, machine: Machine, known: KnownHosts, home: Path) -> None:
    settings = CONFIG.format(address=machine.address, port=machine.port, user=USER, key=machine.key)
    apart = lab.host("behind")
    settings = settings.replace(
        "Host behind", f"  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\nHost {apart.address}"
    )
    head, jump, tail = settings.partition(f"Host {apart.address}")
    tail = tail.replace(machine.address, apart.address).replace(str(machine.port), str(apart.port))
    (home / ".ssh/config").write_text(head + jump + tail)
    reached(Host(name="alias", address="rented-gpu", folder="fab rating"), known)
    jumped = Host(name="jumped", address=apart.address, key_file=str(apart.key), folder="fab rating")
    reached(jumped, known)
    machine.stop()
    try:
        with (
            Remote(jumped, known) as remote,
            pytest.raises(LinkError, match=r"jumped .* broke off .*refused|closed|No route|timed out"),
        ):
            remote.run("true")
    finally:
        machine.start()


def reached(host: Host, known: KnownHosts) -> None:
    """Both reach the host: paramiko looks, ssh answers, rsync carries."""
    with Remote(host, known) as remote:
        assert remote.run("echo here").out == "here\n"
        ssh = ["ssh", "-T", *ssh_options(remote.route, known), remote.route.login, "echo there"]
        seen = subprocess.run(ssh, capture_output=True, text=True, env=ssh_environment(), stdin=subprocess.DEVNULL)
        assert (seen.stdout, seen.stderr) == ("there\n", "")


def test_noise_of_a_login_shell_does_not_reach_rsync(machine: Machine, remote: Remote, tmp_path: Path) -> None:
    machine.run("echo 'echo welcome; printf \"no newline\"' >.bashrc")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a").write_bytes(os.urandom(100_000))
    try:
        there = place(remote, "noisy")
        transfer(Place(Local(), str(tmp_path)), there, "raw")
        transfer(there, Place(Local(), str(tmp_path / "back")), "raw")
        assert (tmp_path / "back/raw/a").read_bytes() == (tmp_path / "raw/a").read_bytes()
    finally:
        machine.run("rm -rf .bashrc noisy")
