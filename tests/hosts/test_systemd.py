"""Services under a systemd that runs: started again when killed and after a reboot, gone when removed, runs left alone."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tasks.hosts.facts import identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.service import Service
from tasks.hosts.ssh import Remote
from tests.hosts import lab as labs
from tests.hosts.lab import PROJECT, USER, Host, Lab, healthy_api, parameters
from tests.waiting import within

WORK = """#!/bin/sh
cd "$(dirname "$0")" || exit
sleep 1000 &
echo $! >>runs
echo "error: the worker says this" >&2
echo $$ >>starts
wait
"""
"""A stand-in for a worker: it starts a run, which is to go on when the worker is gone."""
LINGERS = f"loginctl show-user --value -p Linger {USER} 2>/dev/null || true"
UNITS = "systemctl list-units --all --full; systemctl --user list-units --all --full"


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Host:
    """A host whose first process is systemd."""
    if reason := labs.without_systemd():
        pytest.skip(reason)
    return lab.host("booted", systemd=True)


@pytest.fixture(params=["root", pytest.param("sudo", marks=pytest.mark.slow), "none"])
def account(request: pytest.FixtureRequest, booted: Host, known: KnownHosts) -> Iterator[Remote]:
    """Accounts with the rights of root, with sudo, and with neither."""
    rule = f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" >' if request.param == "sudo" else "rm -f "
    booted.run(f"{rule}/etc/sudoers.d/{USER}", user="root")
    with Remote(parameters(booted, user="root" if request.param == "root" else USER), known) as remote:
        yield remote


class Work:
    """The stand-in as a service, and what is seen of it from behind: nobody logs in to look, which might start things."""

    def __init__(self, machine: Host, remote: Remote, folder: str, **changes: str):
        self.machine, self.remote = machine, remote
        self.facts = replace(identify(remote, folder), **changes)
        remote.put(WORK, f"{self.facts.folder}/worker.sh", 0o700)
        command = ["/bin/sh", f"{self.facts.folder}/worker.sh"]
        self.service = Service(
            remote, self.facts, "fabrating-test", "a test", self.facts.folder, "python3", command, ""
        )

    def seen(self, name: str) -> list[str]:
        folder = self.facts.folder.replace("$", "\\$").replace('"', '\\"')
        return self.machine.run(f'cat "{folder}/{name}" 2>/dev/null || true', user="root").split()

    def alive(self, name: str) -> list[bool]:
        return [self.machine.run(f"kill -0 {p} 2>&1 || echo gone", user="root") == "" for p in self.seen(name)]

    def end(self) -> None:
        self.service.remove()
        self.remote.run('cd "$1" && kill -9 $(tail -n 1 runs) 2>/dev/null; rm -rf "$1"', self.facts.folder)


def test_unit_keeps_its_promises(booted: Host, account: Remote) -> None:
    work = Work(booted, account, 'a 100% "good" $folder')
    service = work.service
    user = work.facts.privilege == "none"
    assert work.facts.services == ("user" if user else "system")
    assert not service.running()
    service.install()
    assert within(10, lambda: work.alive("starts") == [True])
    assert service.installed()
    assert account.run('stat -c %U "/proc/$1"', work.seen("starts")[0]).out.strip() == work.facts.user
    assert within(5, lambda: service.log() == "error: the worker says this"), service.log()

    account.run('kill -9 "$1"', work.seen("starts")[0])
    assert within(20, lambda: work.alive("starts") == [False, True])
    service.install()
    assert within(10, lambda: work.alive("starts") == [False, False, True])
    assert work.alive("runs") == [True, True, True]

    booted.reboot()
    assert within(20, lambda: len(work.seen("starts")) == 4)
    assert service.installed()
    assert (booted.run(LINGERS, user="root") == "yes") == user
    service.remove()
    assert work.alive("starts")[3:] == [False]
    assert work.alive("runs")[3:] == [True]
    assert booted.run(f"find /etc /run '{booted.home}' -name 'fabrating*'", user="root") == ""
    assert booted.run(LINGERS, user="root") != "yes"
    work.end()
    assert within(10, lambda: "fabrating-test" not in account.run(UNITS).out)


def test_service_of_another_kind_is_replaced(booted: Host, known: KnownHosts) -> None:
    """As after the account was given other rights: one copy runs, and removal finds whatever there is."""
    with Remote(parameters(booted, user="root"), known) as remote:
        kinds = ("supervised", "user", "system", "supervised")
        works = [Work(booted, remote, "changing", services=kind) for kind in kinds]
        for number, work in enumerate(works, 1):
            work.service.install()
            assert within(10, lambda n=number: works[0].alive("starts") == [False] * (n - 1) + [True])
        assert remote.run("find /etc /root/.config -name 'fabrating-test*'").out == ""
        works[1].service.install()
        works[2].service.remove()
        assert works[0].alive("starts") == [False] * 5
        works[0].end()


def test_account_that_may_not_linger_is_supervised(booted: Host, known: KnownHosts) -> None:
    """A user's unit would end with the session that installed it; the supervisor does not."""
    booted.run(f"rm -f /etc/sudoers.d/{USER}; systemctl mask --now polkit", user="root")
    try:
        with Remote(parameters(booted), known) as remote:
            work = Work(booted, remote, "supervised")
            assert work.facts.services == "supervised"
            work.service.install()
            assert within(10, lambda: work.alive("starts") == [True])
            remote.close()
            state = f"loginctl show-user --value -p State {USER}"
            assert within(30, lambda: booted.run(state, user="root") == "closing")
            assert work.alive("starts") == [True]
            work.end()
    finally:
        booted.run("systemctl unmask polkit", user="root")


TUNNEL = """
import json, sys
from tasks.hosts import service
from tasks.hosts.facts import identify
from tasks.hosts.hostkeys import KnownHosts, installation_folder
from tasks.hosts.ssh import Remote
from tasks.spec import Host
host = Host(**json.loads(sys.argv[2]))
with Remote(host, KnownHosts(installation_folder() / "known_hosts")) as remote:
    facts = identify(remote, host.folder)
    tunnel = service.tunnel(host, facts.folder, remote.known)
    if sys.argv[1] == "open":
        service.install_tunnel(tunnel, remote, facts)
    else:
        tunnel.remove()
"""
"""What provisioning does about a tunnel, run on the machine where the tunnel begins."""


@pytest.fixture
def api(booted: Host) -> Iterator[str]:
    """An API on this machine's end of the booted host's network."""
    with healthy_api(f"{booted.lab.prefix}.{booted.network}.1") as url:
        yield url


@pytest.mark.parametrize("account", [pytest.param("root", marks=pytest.mark.slow), "none"], indirect=True)
def test_tunnel_is_a_unit(booted: Host, account: Remote, machine: Host, api: str) -> None:
    here = account.run('printf %s "$HOME"').out
    account.put(machine.key.read_bytes(), f"{here}/key")
    host = parameters(machine, key_file=f"{here}/key", server=api, folder="tunnelled", tunnel_port=4303)

    def tunnel(action: str) -> None:
        go = 'cd "$1" && FABRATING_HOME="$HOME/our installation" exec "$2" -c "$3" "$4" "$5"'
        account.run(go, str(PROJECT), f"{host.python_environment}/bin/python", TUNNEL, action, host.model_dump_json())

    def through() -> bool:
        probe = "import urllib.request as u; u.urlopen('http://127.0.0.1:4303/api/health', timeout=3)"
        return machine.run(f'python3 -c "{probe}" 2>/dev/null && echo yes || true') == "yes"

    try:
        assert not through()
        tunnel("open")
        assert within(20, through)
        booted.run("pkill -9 -x ssh", user="root")
        assert within(30, through)
        booted.reboot()
        assert within(30, through)
        tunnel("close")
        assert within(10, lambda: not through())
        assert booted.run(f"find /etc '{booted.home}' -name 'fabrating*'", user="root") == ""
    finally:
        account.run('rm -rf "$HOME/key" "$HOME/our installation"')
        machine.run("rm -rf tunnelled")
