"""What all tests share: how they are spread over processes, and a small sample of real rated documents."""

from pathlib import Path

import pytest

from infra import sample_data

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
