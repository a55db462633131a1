"""Azure, the Hugging Face Hub, azcopy, prebuilt subsets and unrated text are sources like any other."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import BlobServiceClient

from infra.local.azurite import ACCOUNT
from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, build_holdout, build_index, build_sample, plan_arm
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store import bulk
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.azure_signature import account_signature
from tests.corpus.corpora import SCORES, shard_texts, write_corpus

ALL = Arm(name="all", select="all", documents_per_shard=64, population=())
SIZES = {"holdout_documents": 16, "holdout_fraction": 0.2}


def upload(url: str, folder: Path, prefix: str = "fw/") -> None:
    store = open_blobs(url)
    for path in sorted(folder.glob("*.parquet")):
        store.upload(path, prefix + path.name)


def shard_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("shard_*.parquet"))]


@pytest.mark.parametrize("kind", ["az", "abfs", "s3", "gs", "pattern", "web"])
def test_every_source_gives_what_the_folder_gives(
    kind: str, corpus: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A list on a web server is that of the files on an Azurite container that anybody may read."""
    if kind in ("s3", "gs"):
        url = request.getfixturevalue("bucket")(kind)
        upload(url, corpus)
    else:
        container = request.getfixturevalue("azure")
        upload(f"az://{container}", corpus)
        url = f"{'abfs' if kind == 'abfs' else 'az'}://{container}"
    if kind == "web":
        client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
        public = client.get_container_client(container)
        public.set_container_access_policy({}, public_access="container")
        public.upload_blob("fw/files.txt", "\n".join(path.name for path in corpus.glob("*.parquet")))
        url = public.url
    source = f"{url}/fw" + {"web": "/files.txt", "pattern": "/part_*.parquet"}.get(kind, "")
    made = []
    for number, each in enumerate((corpus.as_uri(), source)):
        (arm,) = build_arms(Root(tmp_path / f"root{number}"), Pool(source=each, **SIZES), [ALL], workers=2)
        made.append(shard_bytes(arm.path))
    assert made[0] == made[1]
    assert len(made[0]) == 7


def test_bulk_copies_with_a_signature_that_no_process_list_shows(
    corpus: Path, azure: str, azurite_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(f"az://{azure}", corpus)
    (ranged,) = build_arms(Root(tmp_path / "ranged"), Pool(source=f"az://{azure}/fw", **SIZES), [ALL])
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_BLOB_ENDPOINT", f"http://127.0.0.1:{azurite_port}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", account_signature())
    root, pool = Root(tmp_path / "copied"), Pool(source=f"az://{azure}/fw", download="bulk", **SIZES)
    handle = open_pool(root, pool)
    with handle.borrowed(root), handle.borrowed(root):
        (copied,) = build_arms(root, handle, [ALL])
        assert len(list(root.folder.glob("pools/*/.raw/*.parquet"))) == 3
    assert shard_bytes(copied.path) == shard_bytes(ranged.path)
    assert not list(root.folder.glob("pools/*/.raw"))


def test_a_remote_root_holds_the_artifacts(corpus: Path, azure: str, tmp_path: Path) -> None:
    root = Root(f"az://{azure}/root", cache=tmp_path / "cache")
    (made,) = build_arms(root, Pool(source=corpus.as_uri(), **SIZES), [ALL])
    elsewhere = Root(f"az://{azure}/root", cache=tmp_path / "elsewhere")
    assert shard_bytes(elsewhere.open(made.name).path) == shard_bytes(made.path)


def test_azcopy_copies_first_and_the_arm_is_the_same(
    corpus: Path, azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload(f"az://{azure}", corpus)
    ranged = Pool(source=f"az://{azure}/fw", **SIZES)
    (arm,) = build_arms(Root(tmp_path / "ranged"), ranged, [ALL])
    copied = ranged.model_copy(update={"download": "bulk"})
    if bulk.find_azcopy() is not None:
        (same,) = build_arms(Root(tmp_path / "copied"), copied, [ALL])
        assert same.name == arm.name
        assert shard_bytes(same.path) == shard_bytes(arm.path)
        assert len(list(tmp_path.glob("copied/pools/*/.raw/*.parquet"))) == 3
        whole = bulk.copy_blobs(f"az://{azure}", open_blobs(f"az://{azure}").list(), tmp_path / "container")
        assert [blob.name for blob in whole] == [f"fw/part_00{number}.parquet" for number in range(3)]
    monkeypatch.setattr(bulk, "find_azcopy", lambda: None)
    with caplog.at_level("INFO"):
        (without,) = build_arms(Root(tmp_path / "without"), copied, [ALL])
    assert "copied by the store's client: azcopy is not installed" in caplog.text
    assert shard_bytes(without.path) == shard_bytes(arm.path)


def test_an_azcopy_that_does_not_start_is_done_without(
    corpus: Path, azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload(f"az://{azure}", corpus)
    broken = tmp_path / "azcopy"
    broken.write_text("#!/bin/sh\necho 'azcopy: libsecret-1.so.0: cannot open shared object file' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with caplog.at_level("INFO"):
        build_arms(Root(tmp_path / "root"), Pool(source=f"az://{azure}/fw", download="bulk", **SIZES), [ALL])
    assert "copied by the store's client: azcopy does not start (azcopy: libsecret-1.so.0: cannot open" in caplog.text
    broken.write_bytes(b"\x7fELF of another architecture")
    assert "Exec format error" in bulk.why_not(f"az://{azure}/fw")


def test_a_prebuilt_subset_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = tmp_path / "subset"
    tables = write_corpus(raw)
    for path, table, number in zip(sorted(raw.glob("*")), tables, range(3), strict=True):
        kept = (
            table.select(["text"])
            if number == 0
            else table.select(["text", SCORES[0]]).rename_columns(["text", "score"])
        )
        pq.write_table(kept, path, row_group_size=50)
    root, pool = Root(tmp_path / "root"), Pool(source=raw.as_uri(), format="prebuilt", **SIZES)
    held = pq.read_table(build_holdout(root, pool).path / "documents.parquet")
    (made,) = build_arms(root, pool, [ALL])
    out = set(held.column("text").to_pylist())
    stored = [text for table in tables for text in table.column("text").to_pylist() if text not in out]
    assert [text for shard in shard_texts(made.path)[:-1] for text in shard] == stored
    with pytest.raises(InputError, match=r"prebuilt and taken as it is: use all"):
        plan_arm(root, pool, Arm())


def test_an_unrated_pool_is_sampled_at_random(tmp_path: Path) -> None:
    raw = tmp_path / "plain"
    for number, table in enumerate(write_corpus(raw)):
        pq.write_table(table.select(["text"]), raw / f"part_{number:03d}.parquet")
    root, pool = Root(tmp_path / "root"), Pool(source=raw.as_uri(), format="unrated", **SIZES)
    (made,) = build_arms(root, pool, [Arm(name="rand", select="random")])
    assert made.facts["documents"] == round((360 - 16) * 0.165)
    with pytest.raises(InputError, match="unrated: use random or all"):
        build_arms(root, pool, [Arm()])
    asked = Arm(name="t", select="random", tokens=5)
    with pytest.raises(InputError, match="no column 'token_count' to count them"):
        plan_arm(root, pool, asked)
    without = pool.model_copy(update={"token_count_column": None})
    with pytest.raises(InputError, match="the pool has no column of lengths in tokens: give a share"):
        plan_arm(root, without, asked)
    nulls = table.select(["text"]).append_column("token_count", pa.nulls(len(table), pa.int64()))
    pq.write_table(nulls, raw / "part_000.parquet")
    for number in (1, 2):
        (raw / f"part_{number:03d}.parquet").unlink()
    with pytest.raises(InputError, match="no document that it may take has its length in 'token_count'"):
        build_arms(root, pool, [asked])
    (made,) = build_arms(root, pool, [Arm(name="rand", select="random")])
    assert made.facts["tokens"] is None


def test_the_sample_is_of_the_pool_without_the_holdout(corpus: Path, tmp_path: Path) -> None:
    root, pool = Root(tmp_path / "root"), Pool(source=corpus.as_uri(), tokenizer_characters=5_000, **SIZES)
    held = pq.read_table(build_holdout(root, pool).path / "documents.parquet").column("text").to_pylist()
    sampled = pq.read_table(build_sample(root, pool).path / "sample.parquet").column("text").to_pylist()
    assert 5_000 <= sum(map(len, sampled)) < 5_000 + len(sampled[-1])
    assert not set(sampled) & set(held)
    everything = build_sample(root, pool.model_copy(update={"tokenizer_characters": 10**9}))
    assert everything.facts["documents"] == 360 - 16


class Hub(BaseHTTPRequestHandler):
    """The few answers of the Hub's API that a data set needs, and a redirect to where its files are."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"
    revisions = ("", "/revision/main", "/revision/refs%2Fconvert%2Fparquet")

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path.startswith("/cdn/"):
            self.send_file(self.folder / path.removeprefix("/cdn/"))
        elif self.headers.get("Authorization") != "Bearer a-token":
            self.reply(401, b"{}")
        elif "/tree/" in path:
            files = sorted(self.folder.glob("*.parquet"))
            entries = [
                {"type": "file", "path": f"data/{f.name}", "size": f.stat().st_size, "oid": f.name} for f in files
            ]
            self.reply(200, json.dumps([*entries, {"type": "directory", "path": "data/x", "oid": "d"}]).encode())
        elif path in [f"/api/datasets/org/set{revision}" for revision in self.revisions]:
            self.reply(200, json.dumps({"id": "org/set", "sha": self.commit}).encode())
        elif path.startswith(f"/datasets/org/set/resolve/{self.commit}/data/"):
            self.send_response(302)
            self.send_header("Location", "/cdn/" + path.rsplit("/", 1)[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.reply(404, b"{}")

    def send_file(self, path: Path) -> None:
        data = path.read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("ETag", '"of-the-cdn"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"folder": corpus}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "a-token")
    yield "hf://org/set/data"
    server.shutdown()
    server.server_close()


def test_a_data_set_of_the_hub_is_read_by_ranges(hub: str, corpus: Path, tmp_path: Path) -> None:
    assert [blob.name for blob in open_blobs(hub).list(suffix=".parquet")] == [
        f"part_{i:03d}.parquet" for i in range(3)
    ]
    (made,) = build_arms(Root(tmp_path / "a"), Pool(source=hub, **SIZES), [ALL])
    (local,) = build_arms(Root(tmp_path / "b"), Pool(source=corpus.as_uri(), **SIZES), [ALL])
    assert shard_bytes(made.path) == shard_bytes(local.path)


def test_a_data_set_of_the_hub_is_a_source_beside_a_folder(hub: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "ready", seed=1)
    sources = {"hub": hub, "ready": str(tmp_path / "ready")}
    root, pool = Root(tmp_path / "root"), Pool(sources=sources, format="prebuilt", **SIZES)
    drawn = Arm(name="drawn", select="random", subset="hub", share=0.165, documents_per_shard=64)
    whole = Arm(name="whole", select="subset", subset="ready", documents_per_shard=64)
    made = build_arms(root, pool, [drawn, whole])
    assert [arm.facts["documents"] for arm in made] == [round(0.165 * (360 - 8)), 360 - 8]
    folder = Pool(sources=sources | {"hub": str(tmp_path / "copy")}, format="prebuilt", **SIZES)
    write_corpus(tmp_path / "copy")
    assert [shard_bytes(arm.path) for arm in build_arms(Root(tmp_path / "other"), folder, [drawn, whole])] == [
        shard_bytes(arm.path) for arm in made
    ]


@pytest.mark.parametrize("revision", ["main", "refs/convert/parquet", "refs%2Fconvert%2Fparquet"])
def test_a_revision_of_the_hub_may_hold_slashes(revision: str, hub: str, corpus: Path) -> None:
    assert len(open_blobs(f"hf://org/set@{revision}/data").list(suffix=".parquet")) == 3


def test_a_data_set_that_cannot_be_opened_says_why(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(InputError, match=r"cannot be opened .*HF_TOKEN"):
        open_blobs(hub)
    with pytest.raises(InputError, match="names no data set"):
        open_blobs("hf://just-a-name")


@pytest.mark.parametrize("below", ["root", "deep/root", "."])
def test_a_root_inside_its_source_is_no_data(below: str, tmp_path: Path) -> None:
    write_corpus(tmp_path, files=2)
    root, pool = Root(tmp_path / below), Pool(source=tmp_path.as_uri(), holdout_fraction=0.1)
    before = open_pool(root, pool)
    (text,) = build_arms(root, pool, [Arm(name="all", select="all")], workers=1)
    again = open_pool(root, pool)
    assert again.pool_id == before.pool_id and again.blobs == before.blobs
    assert [blob.name for blob in again.blobs] == ["part_000.parquet", "part_001.parquet"]
    shards = open_pool(root, Pool(source=text.path.as_uri(), format="unrated"))
    assert "shard_00000.parquet" in [blob.name for blob in shards.blobs], "an artifact may be a source itself"


def test_empty_and_missing_sources_say_what_to_do(tmp_path: Path, azure: str) -> None:
    root = Root(tmp_path / "root")
    with pytest.raises(InputError, match=r"holds no files ending in \.parquet"):
        open_pool(root, Pool(source=f"az://{azure}/nothing"))
    with pytest.raises(InputError, match="cannot be listed"):
        open_pool(root, Pool(source="az://no-such-container/x"))
    with pytest.raises(InputError, match="does not exist"):
        open_pool(root, Pool(source=(tmp_path / "nowhere").as_uri()))
    (tmp_path / "small").mkdir()
    pq.write_table(pa.table({"text": ["one"] * 9}), tmp_path / "small/a.parquet")
    with pytest.raises(InputError, match="leaves 0 for the holdout"):
        build_index(root, Pool(source=(tmp_path / "small").as_uri(), format="unrated"))
        build_holdout(root, Pool(source=(tmp_path / "small").as_uri(), format="unrated"))
