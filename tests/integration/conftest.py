"""An object store that speaks Azure's protocol, for tests that need no Prefect server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import azurite, ports, processes

needs_azurite = pytest.mark.skipif(not azurite.available(), reason="Azurite is not installed: it needs Node.js")


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Azurite of our own."""
    folder, mark, port = tmp_path_factory.mktemp("azurite"), os.urandom(8).hex(), ports.choose(21_000)
    pid = processes.start(
        azurite.command(port, folder), mark=mark, log=folder / "log", cwd=folder, environment=dict(os.environ)
    )
    try:
        ours = lambda: processes.listens(pid, port) and azurite.answers(port)  # noqa: E731
        assert ports.wait(ours, lambda: processes.belongs(pid, mark), 60), (folder / "log").read_text()
        yield port
    finally:
        processes.stop(mark)


@pytest.fixture
def container(azurite_port: int, sample: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sample as blobs: its az:// URL, with the credentials in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    azurite.upload(azurite_port, "raw", "docs", sample)
    return "az://raw/docs"
