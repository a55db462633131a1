"""Hosts for the tests of this room: real ones in namespaces, and a stand-in for the Prefect server's health endpoint."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.ssh import Remote
from tasks.hosts.wheel import build_wheel
from tests.hosts import lab as labs
from tests.hosts.lab import parameters


@pytest.fixture(scope="session")
def lab() -> Iterator[labs.Lab]:
    """An empty lab; skipped with the reason where none can be set up."""
    if reason := labs.unable():
        pytest.skip(reason)
    with labs.Lab() as made:
        yield made


@pytest.fixture(scope="session")
def machine(lab: labs.Lab) -> labs.Host:
    """A host that tests may log in to, but not change for good."""
    return lab.host("a")


@pytest.fixture(autouse=True)
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh installation folder, with a space in its name; tunnels that a failed test left open are closed."""
    folder = tmp_path / "our installation"
    monkeypatch.setenv("FABRATING_HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield folder
    for left in folder.glob("tunnels/*/*.pid"):
        os.kill(int(left.read_text()), signal.SIGTERM)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FabRating's package, as provisioning installs it."""
    return build_wheel(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def known(installation: Path) -> KnownHosts:
    return KnownHosts(installation / "known_hosts")


@pytest.fixture
def remote(machine: labs.Host, known: KnownHosts) -> Iterator[Remote]:
    with Remote(parameters(machine), known) as connection:
        yield connection


@pytest.fixture
def server() -> Iterator[str]:
    """URL of an API that is healthy and can do nothing else."""
    with labs.healthy_api() as url:
        yield url


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests here that ask for a host need the lab."""
    if {"lab", "machine"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.lab)
