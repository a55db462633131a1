"""A small corpus and a range server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import azurite
from tests.corpus.corpora import write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with three files of 120 documents."""
    write_corpus(tmp_path / "raw")
    return tmp_path / "raw"


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
