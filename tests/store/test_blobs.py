"""Object stores: names, ranges tied to an ETag, and errors that say what to do. Azure's side runs against Azurite."""

import pytest
from azure.storage.blob import BlobServiceClient

from infra.local import azurite
from tasks.errors import ChangedError, InputError
from tasks.store.access import open_blobs
from tasks.store.azure import azure_settings
from tasks.store.root import Root
from tasks.store.urls import parse_url


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.parquet").write_bytes(b"0123456789")
    (tmp_path / "in/a.parquet").write_bytes(b"abc")
    (tmp_path / "in/readme.txt").write_bytes(b"no data")
    return tmp_path


def test_listing_is_sorted_and_filtered(folder):
    blobs = open_blobs((folder / "in").as_uri())
    assert [(b.name, b.size) for b in blobs.list(suffix=".parquet")] == [("a.parquet", 3), ("b.parquet", 10)]


def test_ranges_are_exact_and_counted(folder):
    blobs = open_blobs(str(folder / "in"))
    blob = blobs.list(suffix="b.parquet")[0]
    assert bytes(blobs.read_range(blob, 2, 5)) == b"234"
    assert (blobs.counters.requests, blobs.counters.bytes_read) == (1, 3)
    assert [bytes(data) for data in blobs.read_ranges(blob, [(0, 1), (4, 7), (9, 10)])] == [b"0", b"456", b"9"]
    assert (blobs.counters.requests, blobs.counters.bytes_read) == (4, 8)
    assert blobs.read_ranges(blob, []) == []


def test_a_blob_that_changed_since_it_was_listed_is_named(folder):
    blobs = open_blobs(str(folder / "in"))
    blob = blobs.list(suffix="b.parquet")[0]
    (folder / "in/b.parquet").write_bytes(b"something else")
    with pytest.raises(ChangedError, match=r"b\.parquet has changed"):
        blobs.read_range(blob, 0, 3)
    with pytest.raises(ChangedError, match=r"b\.parquet has changed"):
        blobs.read_ranges(blob, [(0, 3), (4, 5), (5, 6)])
    (folder / "in/b.parquet").write_bytes(b"short")
    with pytest.raises(ChangedError, match=r"b\.parquet (has changed|is shorter)"):
        blobs.read_ranges(blob, [(0, 3), (7, 9), (9, 10)])
    (folder / "in/b.parquet").unlink()
    with pytest.raises(ChangedError, match=r"b\.parquet is gone"):
        blobs.read_range(blob, 0, 3)
    with pytest.raises(ChangedError, match=r"b\.parquet is gone"):
        blobs.read_ranges(blob, [(0, 3), (4, 5)])


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///no/such/folder", "does not exist"),
        ("ftp://host/prefix", "scheme 'ftp'"),
        ("az://", "names no container"),
    ],
)
def test_urls_that_cannot_be_right_are_refused(url, sentence, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "someone")
    with pytest.raises(InputError, match=sentence):
        open_blobs(url)


def test_a_missing_account_is_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="AZURE_STORAGE_ACCOUNT"):
        open_blobs("az://raw/x")


def test_a_connection_string_is_taken_apart(monkeypatch):
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        "DefaultEndpointsProtocol=http;AccountName=me;AccountKey=a2V5PT0=;BlobEndpoint=http://127.0.0.1:1/me;",
    )
    assert azure_settings(parse_url("az://raw")) == {
        "account_name": "me",
        "account_key": "a2V5PT0=",
        "endpoint": "http://127.0.0.1:1/me",
    }


def test_a_root_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be used"):
        Root(tmp_path / "file" / "root")


def test_azure_names_a_blob_that_changed_while_its_ranges_were_read(azurite_port, monkeypatch):
    connection = azurite.connection_string(azurite_port)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    container = BlobServiceClient.from_connection_string(connection).create_container("changing")
    container.upload_blob("b.parquet", b"0123456789")
    blobs = open_blobs("az://changing")
    (blob,) = blobs.list()
    assert [bytes(data) for data in blobs.read_ranges(blob, [(0, 1), (4, 7), (9, 10)])] == [b"0", b"456", b"9"]
    for changed in (b"something longer", b"short"):
        container.upload_blob("b.parquet", changed, overwrite=True)
        with pytest.raises(ChangedError, match=r"b\.parquet (has changed|is shorter)"):
            blobs.read_ranges(blob, [(0, 3), (7, 9), (9, 10)])
    assert blobs.counters.retries == 0
    container.delete_blob("b.parquet")
    with pytest.raises(ChangedError, match=r"b\.parquet is gone"):
        blobs.read_ranges(blob, [(0, 3), (4, 5)])
