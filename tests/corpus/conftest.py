"""A small corpus, an Azurite and a range server of one's own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from infra import azurite
from tests.corpus.corpora import write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with three files of 120 documents."""
    write_corpus(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Azurite that belongs to this test session."""
    if not azurite.available():
        pytest.skip("Azurite needs Node.js and `npm ci` in infra/")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(azurite.command(port, tmp_path_factory.mktemp("azurite")))
    try:
        deadline = time.monotonic() + 60
        while not azurite.answers(port):
            assert process.poll() is None, "Azurite ended at once"
            assert time.monotonic() < deadline, "Azurite does not answer"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def azure(azurite_port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of an empty container, with credentials in the environment."""
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    container = f"c{abs(hash(request.node.nodeid)):x}"
    BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port)).create_container(container)
    return container


@pytest.fixture
def range_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A blob server over `tmp_path / "store"` (a sub-folder is a container); the path is that of its log of reads."""
    (tmp_path / "store").mkdir()
    log = tmp_path / "reads.tsv"
    command = [sys.executable, "-m", "benchmarks.data.range_server", str(tmp_path / "store"), "--log", str(log)]
    process = subprocess.Popen([*command, "--delay", "0.002"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(port))
        yield log
    finally:
        process.terminate()
        process.wait(30)
