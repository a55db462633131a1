"""What a pool reads of a folder: its files of data, and nothing that was hidden, left behind, marked or replaced."""

import logging

import pytest
from azure.storage.blob import BlobServiceClient

from infra.local import azurite
from tasks.errors import InputError
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob
from tasks.store.listing import data_files, is_hidden
from tasks.store.urls import parse_source


def write(folder, *names, data=b"PAR1"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def listed(folder):
    return [blob.name for blob in data_files(open_blobs(str(folder)), ".parquet")]


def test_hidden_and_uncommitted_files_are_left_out_and_said(tmp_path, caplog):
    write(tmp_path, "part-0.parquet", "_year=2024/part-1.parquet", "dump=CC/part-2.parquet")
    write(
        tmp_path, "_temporary/0/attempt_1/part-0.parquet", ".part-0.parquet", "_metadata.parquet", "x/.hidden/a.parquet"
    )
    with caplog.at_level(logging.WARNING):
        assert listed(tmp_path) == ["_year=2024/part-1.parquet", "dump=CC/part-2.parquet", "part-0.parquet"]
    assert "left out 4 hidden or uncommitted files, such as " in caplog.text


@pytest.mark.parametrize("name", ["a\tb.parquet", "a\nb.parquet"])
def test_a_name_that_no_store_allows_is_to_be_changed(tmp_path, name):
    write(tmp_path, name)
    with pytest.raises(InputError, match=r"cannot be listed \(.*a.*\): rename what has a tab, a line break"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("name", "hidden"), [("a/_b=1/c", False), ("a/_b/c", True), (".a=1/c", True), ("a/b_/c", False)]
)
def test_a_name_is_hidden_by_any_of_its_parts(name, hidden):
    assert is_hidden(name) is hidden


def test_a_folder_marker_is_no_file(azurite_port, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    service = BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port))
    container = service.create_container("markers")
    for name in ("raw", "raw/web.parquet"):
        container.upload_blob(name, b"", metadata={"hdi_isfolder": "true"})
    container.upload_blob("raw/web.parquet/part-0.parquet", b"PAR1")
    container.upload_blob("raw/empty.parquet", b"")
    found = [blob.name for blob in data_files(open_blobs("az://markers"), ".parquet")]
    assert found == ["raw/empty.parquet", "raw/web.parquet/part-0.parquet"]  # an empty file is for the index to name


@pytest.mark.parametrize(
    ("log", "kind"), [("_delta_log/00000000000000000000.json", "Delta"), ("metadata/v1.metadata.json", "Iceberg")]
)
def test_a_table_with_removed_files_is_refused(tmp_path, log, kind):
    write(tmp_path, "part-0.parquet", log)
    with pytest.raises(InputError, match=rf"is a table of {kind}.*write its current version"):
        listed(tmp_path)


class Hub:
    """What a data set on the Hub lists."""

    place = parse_source("hf://org/set")

    def __init__(self, *names):
        self.names = names

    def list(self):
        return [Blob(name, 1, "") for name in self.names]


def test_several_splits_are_never_mixed():
    names = [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    ]
    with pytest.raises(InputError, match=r"the splits test, train.*such as hf://org/set/\*\*/train\*\.parquet"):
        data_files(Hub(*names), ".parquet")
    assert len(data_files(Hub(*names[1:]), ".parquet")) == 2
    assert len(data_files(Hub("data/CC-MAIN-2024/000.parquet", "data/CC-MAIN-2023/000.parquet"), ".parquet")) == 2


def test_a_folder_without_data_is_refused(tmp_path):
    write(tmp_path, "readme.txt")
    with pytest.raises(InputError, match=r"holds no files ending in \.parquet"):
        listed(tmp_path)
