"""Object stores: names, ranges tied to an ETag, and errors that say what to do. Azure's side runs against Azurite."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from infra.local import azurite
from tasks.errors import ChangedError, DeniedError, InputError, StoreError
from tasks.store.access import open_blobs
from tasks.store.azure import azure_settings
from tasks.store.blobs import Blob, Blobs
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


OPERATIONS: dict[str, Callable[[Blobs, Path], object]] = {
    "list": lambda store, _: store.list(),
    "peek": lambda store, _: store.peek(),
    "read_range": lambda store, _: store.read_range(Blob("a", 9, ""), 0, 9),
    "read_if_exists": lambda store, _: store.read_if_exists("a"),
    "read_tagged": lambda store, _: store.read_tagged("a"),
    "upload": lambda store, path: store.upload(path, "a"),
    "write": lambda store, _: store.write("a", b"data"),
    "create": lambda store, _: store.create("a", b"data"),
    "replace": lambda store, _: store.replace("a", b"data", {"e_tag": "x"}),
    "require_conditional": lambda store, _: store.require_conditional(),
    "changed": lambda store, _: store.changed("a"),
    "delete": lambda store, _: store.delete("a"),
    "copy": lambda store, path: store.copy(Blob("a", 9, ""), path),
    "download": lambda store, path: store.download("a", path),
    "sha256": lambda store, _: store.sha256("a"),
}


@pytest.fixture
def answering(monkeypatch) -> Iterator[Callable[[int], Blobs]]:
    """A bucket whose store answers all with one status."""
    status = 0

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION")
    for name, value in {**dict.fromkeys(names, "x"), "ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)

    def make(code: int) -> Blobs:
        nonlocal status
        status = code
        return open_blobs("s3://bucket/root", hurried=True)

    yield make
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_says_that_the_credential_is_refused(operation, answering, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(
        DeniedError, match=r"s3://bucket/root.* cannot be .*status 403.*: check or renew the credentials"
    ):
        OPERATIONS[operation](answering(403), tmp_path / "file")


def test_a_store_that_is_busy_is_worth_another_attempt_and_a_wrong_request_is_not(answering, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    for code, error in ((409, StoreError), (500, StoreError), (400, InputError)):
        with pytest.raises(error, match=rf"s3://bucket/root/a cannot be written \(status {code}\)"):
            answering(code).upload(tmp_path / "file", "a")
    with pytest.raises(FileNotFoundError, match="none"):
        answering(500).upload(tmp_path / "none", "a")


def test_a_full_disk_here_is_no_fault_of_the_store(folder, tmp_path):
    (tmp_path / ".full.download").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        open_blobs((folder / "in").as_uri()).download("a.parquet", tmp_path / "full")
    assert not isinstance(raised.value, StoreError)


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
