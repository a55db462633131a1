"""An object store that speaks Azure's protocol, for tests that need no Prefect server."""

from pathlib import Path

import pytest

from infra.local import azurite


@pytest.fixture
def container(azurite_port: int, sample: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sample as blobs: its az:// URL, with the credentials in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    azurite.upload(azurite_port, "raw", "docs", sample)
    return "az://raw/docs"
