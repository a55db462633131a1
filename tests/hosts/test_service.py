"""Services: kept running, one copy only, and the tunnel that comes back."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from tasks.hosts.facts import identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import Local
from tasks.hosts.provision import OWN
from tasks.hosts.service import Service, environment_file, install_tunnel, secrets, tunnel
from tasks.hosts.ssh import Remote
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import parameters
from tests.waiting import within

SUPERVISE = str(files("tasks.hosts.scripts") / "supervise.py")


def supervise(action: str, folder: Path, *command: str) -> int:
    return subprocess.run([sys.executable, SUPERVISE, action, str(folder), "thing", *command]).returncode


def test_supervisor_keeps_one_copy_running(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = ["sh", "-c", f'echo $$ >>"{starts}"; exec sleep 1000']
    assert supervise("status", tmp_path) == 1
    assert supervise("start", tmp_path, *command) == 0
    try:
        assert supervise("start", tmp_path, *command) == 0
        assert within(10, starts.exists)
        first = int(starts.read_text().split()[0])
        os.kill(first, signal.SIGKILL)
        assert within(15, lambda: len(starts.read_text().split()) == 2)
        second = int(starts.read_text().split()[1])
        assert "thing ended with status -9" in (tmp_path / "thing.log").read_text()
        os.kill(int((tmp_path / "thing.pid").read_text()), signal.SIGKILL)
        assert within(5, lambda: not Path(f"/proc/{second}").exists()), "the command outlived its supervisor"
        assert supervise("status", tmp_path) == 1
        assert supervise("start", tmp_path, *command) == 0
        assert within(10, lambda: len(starts.read_text().split()) == 3)
    finally:
        assert supervise("stop", tmp_path) == 0
    assert within(5, lambda: not Path(f"/proc/{starts.read_text().split()[2]}").exists())
    assert supervise("stop", tmp_path) == 0


def test_secrets_survive_the_shell_whatever_is_in_them(tmp_path: Path) -> None:
    found = secrets({"WANDB_API_KEY": "a'b\"$HOME`id`\\ #;\r\n", "HF_TOKEN": "", "PATH": "/bin"})
    assert found == {"WANDB_API_KEY": "a'b\"$HOME`id`\\ #;"}
    file = tmp_path / "secrets.env"
    file.write_text(environment_file(found))
    read = Local().run('. "$1"; printf %s "$WANDB_API_KEY"', str(file)).out
    assert read == found["WANDB_API_KEY"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    command = tmp_path / "a folder 100% $HOME" / "worker.sh"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    facts = replace(identify(Local(), str(tmp_path)), services="system", user="root")
    service = Service(Local(), facts, "fabrating-worker", "worker", str(tmp_path), "python3", [str(command)], "")
    unit = tmp_path / "fabrating-worker.service"
    unit.write_text(service.unit())
    seen = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "fabrating-worker" not in seen.stderr, seen.stderr
    assert "Restart=always" in unit.read_text()
    assert "KillMode=process" in unit.read_text()


def test_tunnel_comes_back_after_its_connection_was_lost(machine: Machine, known: KnownHosts, server: str) -> None:
    host = parameters(machine, server=server, folder="tunnelled", tunnel_port=4301)
    probe = "python3 -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:4301/api/health', timeout=3)\""
    with Remote(host, known) as remote:
        facts = identify(remote, host.folder)
        service = tunnel(host, facts.folder, known)

        def through() -> bool:
            return remote.run(probe, check=False).status == 0

        assert not through()
        install_tunnel(service, remote, facts)
        try:
            assert within(20, through)
            assert service.installed()
            assert within(10, lambda: remote.run(OWN, facts.folder, 4301, check=False).status == 0)
            process, *_ = mark = remote.read(f"{facts.folder}/tunnel").split()
            machine.run(f"kill -STOP {process}", user="root")  # what the far end looks like after the cable was pulled
            ours = subprocess.run(
                ["pgrep", "-f", f"127.0.0.1:4301:{server.split('/')[2]}"], capture_output=True, text=True
            )
            for pid in ours.stdout.split():
                if Path(f"/proc/{pid}/comm").read_bytes().strip() == b"ssh":
                    os.kill(int(pid), signal.SIGKILL)
            assert within(30, lambda: remote.read(f"{facts.folder}/tunnel").split() not in ([], mark) and through())
        finally:
            service.remove()
            remote.run('rm -rf "$1"', facts.folder)
        assert within(10, lambda: not through())
