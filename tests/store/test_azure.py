"""Signing in to Azure: an account that is not there is said soon, and `az` is asked once and in silence."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import DeniedError, InputError, StoreError
from tasks.store import azure
from tasks.store.access import open_blobs

AZ = """#!/bin/sh
echo "$@" >>{log}
echo '{{"accessToken": "token", "expiresOn": "2999-01-01 00:00:00.000000", "expires_on": 32472144000, "tokenType": "Bearer"}}'
"""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    azure.identity.cache_clear()
    yield monkeypatch
    azure.identity.cache_clear()


def test_an_account_that_is_not_there_is_said_within_ten_seconds(account: pytest.MonkeyPatch) -> None:
    account.setenv("AZURE_STORAGE_BLOB_ENDPOINT", "https://acme.blob.nowhere.invalid")
    began = time.monotonic()
    with pytest.raises(
        (InputError, StoreError), match=r"acme\.blob\.nowhere\.invalid does not resolve .*the account's name"
    ):
        open_blobs("az://raw/web")
    assert time.monotonic() - began < 10


def test_az_is_asked_once_for_all_stores_and_logs_nothing(
    account: pytest.MonkeyPatch, azurite_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Azurite takes no such token, so each store is refused; a real one would take it."""
    log, tool = tmp_path / "log", tmp_path / "bin/az"
    tool.parent.mkdir()
    tool.write_text(AZ.format(log=log))
    tool.chmod(0o755)
    account.setenv("PATH", str(tool.parent), prepend=":")
    account.setenv("AZURE_STORAGE_BLOB_ENDPOINT", f"http://127.0.0.1:{azurite_port}/acme")
    with caplog.at_level(logging.INFO):
        for name in ("one", "two", "three"):
            with pytest.raises((DeniedError, InputError), match="cannot be listed"):
                open_blobs(f"az://{name}").list()
    assert len(log.read_text().splitlines()) == 1
    assert not [record for record in caplog.records if record.name.startswith("azure")]
