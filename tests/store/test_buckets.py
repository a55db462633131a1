"""s3:// and gs:// as sources and as roots, against a server with S3's protocol; files of a web server by a list."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.errors import ChangedError, InputError
from tasks.store import buckets
from tasks.store.access import open_blobs
from tasks.store.buckets import s3_settings
from tasks.store.bulk import copy_blobs
from tasks.store.files import read_file
from tasks.store.root import Root

NAME = "arms/a/text"


def publish(root: Root, text: str = "one") -> None:
    def make(work) -> None:
        work.temporary("a.txt").write_text(text)
        work.finish("a.txt")

    root.build(NAME, make, spec={})


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_is_read_by_ranges_and_changes_are_noticed(scheme: str, bucket: Callable[..., str]) -> None:
    store = open_blobs(f"{bucket(scheme)}/web#2 a")
    store.write("b?.parquet", b"0123456789")
    (blob,) = store.list(suffix=".parquet")
    assert [bytes(data) for data in store.read_ranges(blob, [(0, 1), (4, 7), (9, 10)])] == [b"0", b"456", b"9"]
    store.write("b?.parquet", b"another one")
    with pytest.raises(ChangedError, match="has changed"):
        store.read_range(blob, 0, 3)
    assert read_file(f"{store.url}/b?.parquet") == b"another one"
    with pytest.raises(InputError, match=r"none.txt cannot be read \(it is not there\)"):
        read_file(f"{store.url}/none.txt")
    with pytest.raises(InputError, match=r"cannot be listed \(status 404, NoSuchBucket\): check the URL"):
        open_blobs(f"{scheme}://there-is-none/web").list()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_root_in_a_bucket_holds_artifacts_and_what_hosts_agree_on(
    scheme: str, bucket: Callable[..., str], tmp_path: Path
) -> None:
    url = f"{bucket(scheme)}/root"
    first, second = (Root(url, cache=tmp_path / name) for name in ("first", "second"))
    publish(first)
    assert (second.open(NAME).path / "a.txt").read_text() == "one"
    assert [root.settle("drawn.json", root.folder.parent.name.encode()) for root in (first, second)] == [b"first"] * 2
    for root in (first, second):
        root.edit("ledger.json", lambda there, root=root: (there or b"") + root.folder.parent.name.encode())
    assert first.read("ledger.json") == b"firstsecond"
    stale = open_blobs(url).read_tagged("ledger.json")
    first.edit("ledger.json", lambda there: b"newer")
    assert stale is not None and not open_blobs(url).replace("ledger.json", b"older", stale[1])
    assert sorted(blob.name for blob in open_blobs(url).list()) == [
        f"{NAME}/a.txt",
        f"{NAME}/manifest.json",
        "drawn.json",
        "ledger.json",
    ]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_root_where_two_could_create_one_object_is_refused(
    scheme: str, bucket: Callable[..., str], tmp_path: Path
) -> None:
    root = Root(f"{bucket(scheme, 'old')}/root", cache=tmp_path)
    with pytest.raises(
        InputError, match=r"cannot be a root: .* \(no If-None-Match or If-Match\).*; give another store"
    ):
        publish(root)
    assert root.find(NAME) is None


def test_a_bucket_is_copied_as_a_whole(bucket: Callable[..., str], tmp_path: Path) -> None:
    store = open_blobs(f"{bucket('s3')}/web")
    for name in ("a.parquet", "deep/b.parquet"):
        store.write(name, name.encode())
    copies = copy_blobs(store.url, store.list(), tmp_path / "copy")
    assert [(blob.name, (tmp_path / "copy" / blob.name).read_text()) for blob in copies] == [
        (name, name) for name in ("a.parquet", "deep/b.parquet")
    ]
    listed = store.list()
    store.write("a.parquet", b"A.PARQUET")
    with pytest.raises(ChangedError, match=r"a\.parquet has changed"):
        copy_blobs(store.url, listed, tmp_path / "late")


def test_amazons_own_files_name_the_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n[profile lab]\nregion = eu-north-1\n")
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = A\naws_secret_access_key = %b\naws_session_token = T\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert s3_settings() == {"region": "eu-west-1"}
    monkeypatch.setenv("AWS_PROFILE", "lab")
    lab = {"access_key_id": "A", "secret_access_key": "%b", "session_token": "T", "region": "eu-north-1"}
    assert s3_settings() == lab
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "B")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "c")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert s3_settings() == {"access_key_id": "B", "secret_access_key": "c", "region": "us-west-2"}


@pytest.mark.parametrize(("scheme", "remedy"), [("s3", "set AWS_ACCESS_KEY_ID"), ("gs", "run gcloud auth")])
def test_a_missing_credential_is_said_at_once(
    scheme: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*buckets.AMAZON, *buckets.GOOGLE, "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(buckets, "METADATA", ("127.0.0.1", 1))
    with pytest.raises(InputError, match=f"{scheme}://raw/web needs a credential: {remedy}"):
        open_blobs(f"{scheme}://raw/web")


class Ranges(SimpleHTTPRequestHandler):
    """A folder by HTTP, with ranges."""

    def do_GET(self) -> None:
        data = (
            Path(self.translate_path(self.path)).read_bytes()
            if Path(self.translate_path(self.path)).is_file()
            else None
        )
        if data is None:
            self.send_error(404)
            return
        start, end = 0, len(data)
        if given := self.headers.get("Range"):
            first, last = given.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last) + 1)
        self.send_response(206 if given else 200)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("files.txt", "b c.parquet\n\nx/a.parquet\n"),
        ("files.json", '["b c.parquet", "x/a.parquet"]'),
        ("manifest.json", '{"files": [{"path": "b c.parquet"}, {"path": "x/a.parquet", "bytes": 3}]}'),
    ],
)
def test_a_web_server_is_read_by_a_list_of_its_files(name: str, given: str, web: str, tmp_path: Path) -> None:
    (tmp_path / "served/raw/x").mkdir(parents=True)
    (tmp_path / "served/raw/b c.parquet").write_bytes(b"0123456789")
    (tmp_path / "served/raw/x/a.parquet").write_bytes(b"abc")
    (tmp_path / "served/raw" / name).write_text(given)
    store = open_blobs(f"{web}/raw/{name}")
    first, _ = blobs = store.list(suffix=".parquet")
    assert [(blob.name, blob.size) for blob in blobs] == [("b c.parquet", 10), ("x/a.parquet", 3)]
    assert bytes(store.read_range(first, 2, 5)) == b"234"
    with pytest.raises(InputError, match=r"files\.txt can only be read"):
        Root(f"{web}/raw/files.txt")


def test_a_list_that_is_wrong_is_named(web: str, tmp_path: Path) -> None:
    (tmp_path / "served/files.txt").write_text("gone.parquet")
    (tmp_path / "served/odd.json").write_text("{}")
    for name, said in (
        ("files.txt", r"gone\.parquet is on the list files\.txt, but cannot be read"),
        ("odd.json", r"odd\.json cannot be read"),
        ("none.txt", "is not there"),
    ):
        with pytest.raises(InputError, match=said):
            open_blobs(f"{web}/{name}").list()
