"""What the doctor says of credentials and stores, against Azurite: what is wrong, what to do, and never a secret."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)
from typer.testing import CliRunner

from infra.cli.main import app
from infra.doctor import server, store
from infra.local import azurite
from tasks.errors import InputError
from tasks.store.access import local_path, open_blobs
from tests.wandb_service import GOOD, REFUSED, wandb_service

__all__ = ["wandb_service"]

ROOT = "az://doctor/results"
WRONG = azurite.PUBLIC_KEY.replace("Eby8", "Ebz9")


@pytest.fixture
def settings(azurite_port, monkeypatch, tmp_path):
    """Set the account, and one credential of it, in a shell that has no others."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port))
    if not service.get_container_client("doctor").exists():
        service.create_container("doctor")
    monkeypatch.chdir(tmp_path)
    for name in ("CONNECTION_STRING", "KEY", "SAS_TOKEN"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)

    def give(port=azurite_port, account=azurite.ACCOUNT, **credential):
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", account)
        monkeypatch.setenv("AZURE_STORAGE_BLOB_ENDPOINT", f"http://127.0.0.1:{port}/{account}")
        for name, value in credential.items():
            monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)

    return give


def sas(rights, hours=1):
    now = datetime.now(UTC)
    permissions, kinds = AccountSasPermissions.from_string(rights), ResourceTypes(container=True, object=True)
    begin, end = now - timedelta(days=1), now + timedelta(hours=hours)
    return generate_account_sas(azurite.ACCOUNT, azurite.PUBLIC_KEY, kinds, permissions, end, start=begin)


def test_a_store_that_lets_us_in_is_listed_written_and_left_as_it_was(settings):
    settings(KEY=azurite.PUBLIC_KEY)
    assert store.credentials().found == "the emulator Azurite with its public key"
    assert store.look("root", ROOT, write=True).row() == {
        "what": "root",
        "state": "good",
        "found": f"{ROOT} can be listed and written: empty",
        "remedy": None,
    }
    assert open_blobs(ROOT).list() == []
    empty = store.look("data", ROOT)
    assert empty.state == "bad" and "holds nothing" in empty.found


@pytest.mark.parametrize(
    ("credential", "url", "found", "remedy"),
    [
        ({"KEY": WRONG}, ROOT, "status 403, AuthorizationFailure", "copy the key again"),
        ({"KEY": "no base 64!"}, ROOT, "Invalid Access Key", "copy the key again"),
        ({"SAS_TOKEN": "sv=2022-11-02&ss=b&srt=sco&sp=rl&sig=AAAA"}, ROOT, "status 403", "make a new SAS token"),
        ({}, ROOT, "lacked valid authentication", "az login"),
        ({"KEY": azurite.PUBLIC_KEY}, "az://nobody/x", "404, ContainerNotFound", "make the container nobody, or mend"),
        ({"KEY": azurite.PUBLIC_KEY, "port": 1}, ROOT, "does not answer", "the network"),
    ],
    ids=["wrong key", "torn key", "forged token", "no credential", "no container", "unreachable"],
)
def test_what_is_wrong_has_a_remedy_and_shows_no_secret(settings, credential, url, found, remedy):
    settings(**credential)
    finding = store.look("root", url, write=True)
    assert finding.state == "bad" and found in finding.found and remedy in finding.remedy
    said = json.dumps([finding.row(), store.credentials().row()])
    assert not any(value in said for value in (WRONG, azurite.PUBLIC_KEY, "sig=", "AAAA", "no base"))


def test_a_token_without_write_access_is_told_before_it_costs_a_training(settings):
    settings(SAS_TOKEN=sas("rl"))
    assert store.credentials().state == "good" and "rights rl" in store.credentials().found
    finding = store.look("root", ROOT, write=True)
    assert finding.state == "bad" and "not written" in finding.found and "write and delete" in finding.remedy


def test_a_token_that_has_ended_is_told_from_its_date(settings):
    settings(SAS_TOKEN=sas("rl", hours=-1))
    finding = store.credentials()
    assert finding.state == "bad" and re.search(r"which ended \d{4}-\d\d-\d\d \d\d:\d\d UTC", finding.found)
    assert store.look("data", ROOT).state == "bad"


def test_no_account_is_no_fault_until_one_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("CONNECTION_STRING", "ACCOUNT", "KEY", "SAS_TOKEN", "BLOB_ENDPOINT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    assert store.credentials().state == "note"
    finding = store.look("root", ROOT, write=True)
    assert finding.state == "bad" and finding.remedy == store.CONFIGURE
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=planted")
    finding = store.credentials()
    assert finding.state == "bad" and "AZURE_STORAGE_CONNECTION_STRING" in finding.found
    assert "planted" not in str(finding)


def test_local_roots_and_a_pasted_address_with_a_token(tmp_path):
    assert store.look("root", str(tmp_path / "to" / "be" / "made"), write=True).state == "good"
    assert not (tmp_path / "to").exists()
    (tmp_path / "file").write_text("")
    assert store.look("root", str(tmp_path / "file" / "root"), write=True).state == "bad"
    with pytest.raises(InputError, match=r"https://me\.blob\.core\.windows\.net/raw carries a signature"):
        local_path("https://me.blob.core.windows.net/raw?sv=1&sig=planted")


def test_a_server_that_does_not_answer_is_bad_and_the_command_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.delenv("FABRATING_SAMPLE", raising=False)
    (finding,) = server.look(None)
    assert finding.state == "bad" and finding.remedy == "make up, or check PREFECT_API_URL"
    done = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path), "--root", str(tmp_path / "root"), "--json"])
    assert done.exit_code == 1
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert (found["Python"]["state"], found["packages"]["state"], found["root"]["state"]) == ("good", "good", "good")
    assert [what for what, row in found.items() if row["state"] == "bad"] == ["Prefect"]


def test_the_doctor_tries_the_key(wandb_service, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", GOOD)
    assert store.wandb().state == "good"
    monkeypatch.setenv("WANDB_API_KEY", REFUSED)
    finding = store.wandb()
    assert finding.state == "bad" and "wandb login --relogin" in finding.remedy
    assert REFUSED not in str(finding)
