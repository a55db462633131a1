"""What all tests share: how they are spread over processes, a small sample of real rated documents, and an Azurite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from infra.local import azurite, ports, processes, sample_data

DOCUMENTS = 1_000
STACKS = ("tests/stack/", "tests/compare/", "tests/chaos/")


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


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a thousand rated documents of the standard library's documentation, in several parquet files."""
    return sample_data.build_sample(tmp_path_factory.mktemp("home"), DOCUMENTS, packages=()).path


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
