"""Small corpora in any shape, and an Azurite of one's own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import BlobServiceClient

from infra import azurite
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL

SCORES = (PEDAGOGICAL, FACTUAL, ENGAGEMENT)


def rated_table(
    texts: Sequence[str | None], scores: Sequence[Sequence[float | None]], dtype: str = "double"
) -> pa.Table:
    """Documents in the production schema: text, tokens, a large embedding, three score columns."""
    rng = np.random.default_rng(len(texts))
    columns = {
        "text": pa.array(texts, pa.string()),
        "token_count": pa.array([len(t or "") // 4 + 1 for t in texts], pa.int64()),
        "embedding": pa.array(list(rng.standard_normal((len(texts), 64), np.float32)), pa.list_(pa.float32())),
    }
    kind = pa.float64() if dtype == "double" else pa.float32()
    columns |= {name: pa.array([row[i] for row in scores], kind) for i, name in enumerate(SCORES)}
    return pa.table(columns)


def write_corpus(folder: Path, files: int = 3, rows: int = 120, row_group: int = 40, seed: int = 0) -> list[pa.Table]:
    """Parquet files of unlike documents with ties and nulls among their scores."""
    rng = np.random.default_rng(seed)
    tables = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        texts = [
            f"document {number}/{row} " + " ".join(map(str, rng.integers(0, 99, int(rng.integers(1, 60)))))
            for row in range(rows)
        ]
        scores = [[None if rng.random() < 0.02 else float(rng.integers(0, 6)) for _ in SCORES] for _ in texts]
        table = rated_table(texts, scores)
        pq.write_table(table, folder / f"part_{number:03d}.parquet", row_group_size=row_group)
        tables.append(table)
    return tables


def shard_texts(folder: Path) -> list[list[str]]:
    """The texts of an arm's shards, the last of which is the holdout."""
    paths = sorted(folder.glob("shard_*.parquet"))
    return [pq.read_table(path).column("text").to_pylist() for path in paths]


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
