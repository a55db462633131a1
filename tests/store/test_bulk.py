"""What azcopy says, in words, and what it left when it was killed."""

import json
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.store import bulk
from tasks.store.blobs import Blob

FAILED = {
    "ErrorMsg": "",
    "JobStatus": "Failed",
    "TotalTransfers": "3",
    "TransfersFailed": "2",
    "FailedTransfers": [{"Src": "https://a/c/deep/one.parquet?sig=secret", "ErrorCode": 403}],
}


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (FAILED, "2 of 3 files failed, the first, one.parquet, with status 403"),
        (FAILED | {"ErrorMsg": "no such container"}, "no such container"),
        (FAILED | {"FailedTransfers": None}, "the job ended as Failed"),
    ],
)
def test_azcopys_json_becomes_a_sentence(job: dict, says: str) -> None:
    line = json.dumps({"MessageType": "EndOfJob", "MessageContent": json.dumps(job)})
    assert bulk._last_message(f"{line}\n") == says


def test_leftovers_of_a_killed_azcopy_go_and_other_versions_are_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program in azcopy's place notes its environment and copies nothing."""
    tool = tmp_path / "bin/azcopy"
    tool.parent.mkdir()
    tool.write_text(
        f"#!/bin/sh\n[ $1 = copy ] || exit 0\nenv >{tmp_path}/env\necho '{json.dumps({'MessageContent': 'refused'})}'\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    for name in bulk.PRINCIPAL:
        monkeypatch.setenv(name, f"the {name}")
    folder = tmp_path / "raw"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"kept")
    (folder / "b").write_bytes(b"else")
    (folder / "deep" / f"{bulk.PARTIAL}1-c").write_bytes(b"half")
    (folder / bulk.ETAGS).write_text(json.dumps({"a": "1", "b": "1"}))
    with pytest.raises(InputError, match=r"azcopy could not copy .* \(refused\)"):
        bulk.copy_blobs("az://c/raw", [Blob("a", 4, "1"), Blob("b", 4, "2")], folder)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [bulk.ETAGS, "a"]
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert {name: seen[name] for name in bulk.PRINCIPAL.values()} == {
        ours: f"the {name}" for name, ours in bulk.PRINCIPAL.items()
    }
    assert (seen["AZCOPY_AUTO_LOGIN_TYPE"], seen["AZCOPY_DOWNLOAD_TO_TEMP_PATH"]) == ("SPN", "true")
