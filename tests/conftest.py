"""What all tests share: how they are spread over processes, a small sample of real rated documents, and an Azurite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import azurite, ports, processes, sample_data

DOCUMENTS = 1_000


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep a file's tests in one process, and all tests that share the stack in one (`--dist loadgroup`)."""
    group = "stack" if item.get_closest_marker("stack") else item.nodeid.split("::")[0]
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The stack's tests take longest: they begin first."""
    items.sort(key=lambda item: item.get_closest_marker("stack") is None)


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
