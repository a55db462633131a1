"""Fixtures of all rooms: a sample of real rated documents, planted runs, an Azurite; and how tests spread over processes."""

import os
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from azure.storage.blob import BlobServiceClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from infra.local import azurite, ports, processes, sample_data
from tests.planted import Bench
from tests.trained import TinyRoot, make_tiny_root

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # test processes share the cores: threads that wait for one another slow both
DOCUMENTS = 1_000
STACKS = ("tests/stack/", "tests/chaos/")


class ByFile(LoadScopeScheduling):
    """A file's tests go to one process, and all of a folder that share a stack to one too."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in STACKS if nodeid.startswith(folder)), nodeid.split("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """How tests are spread over processes; in the order of collection, not by their number."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: the stack's tests, then what else needs a server."""
    items.sort(key=lambda item: (not item.nodeid.startswith(STACKS), item.get_closest_marker("stack") is None))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """PyTorch has as many threads after a test as before it: scoring here takes those that the environment asks for."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a thousand rated documents of the standard library's documentation, in several parquet files.

    Made once for all processes of a session: it takes seconds.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return sample_data.build_sample(shared / "documentation", DOCUMENTS, packages=()).path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRoot:
    """A root with finished runs; read only."""
    return make_tiny_root(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Azurite that belongs to this test session."""
    if not azurite.available():
        pytest.skip("Azurite needs Node.js and `npm ci` in infra/")
    folder, mark, port = tmp_path_factory.mktemp("azurite"), os.urandom(8).hex(), ports.choose(0)
    log = folder / "log"
    pid = processes.start(azurite.command(port, folder), mark=mark, log=log, cwd=folder, environment=dict(os.environ))
    try:
        assert ports.wait(
            lambda: processes.listens(pid, port) and azurite.answers(port), lambda: processes.belongs(pid, mark), 240
        ), log.read_text()
        yield port
    finally:
        processes.stop(mark)


@pytest.fixture
def azure(azurite_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty container, with credentials in the environment."""
    connection = azurite.connection_string(azurite_port)
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    container = f"c{uuid.uuid4().hex}"
    BlobServiceClient.from_connection_string(connection).create_container(container)
    return container


@pytest.fixture(scope="session")
def buckets() -> Iterator[str]:
    """The address of a server with S3's protocol."""
    pytest.importorskip("moto.server", reason="moto is not installed")
    from tests.buckets import serving

    with serving() as address:
        yield address


@pytest.fixture
def bucket(buckets: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes an empty bucket of s3:// or gs://, with credentials in the environment, and returns its URL."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", buckets)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.removeprefix("http://"))

    def make(scheme: str, prefix: str = "b") -> str:
        name = f"{prefix}{uuid.uuid4().hex}"
        urllib.request.urlopen(urllib.request.Request(f"{buckets}/{name}", method="PUT"))
        return f"{scheme}://{name}"

    return make


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    """Makes a root for runs with planted losses."""
    return lambda **options: Bench(tmp_path / "root", **options)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A root for runs with planted losses."""
    return make_bench()
