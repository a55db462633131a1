"""URLs and connection strings as people paste them: what they name is read, or they are refused in a sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from infra.local.azurite import ACCOUNT, PUBLIC_KEY
from tasks.corpus.prepare import build_index
from tasks.errors import InputError, StoreError
from tasks.spec import Pool
from tasks.store.blobs import open_blobs
from tasks.store.root import Root
from tests.corpus.corpora import rated_texts

PREFIXES = ("web", "web#2", "web?3")
CUT_OFF = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Nothing wrong in silence: what follows # or ? in a URL is cut off, and other data is read",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder below each prefix, with one file that holds the prefix."""
    for prefix in PREFIXES:
        (tmp_path / prefix).mkdir()
        (tmp_path / prefix / "a.txt").write_text(prefix)
    return tmp_path


def require_its_own(url: str, prefix: str) -> None:
    """The URL is refused, or what lies below the prefix is read and nothing else."""
    try:
        blobs = open_blobs(url)
        found = [blobs.read_if_exists(blob.name) for blob in blobs.list()]
    except InputError:
        return
    assert found == [prefix.encode()]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_path_may_hold_any_character(folder: Path, prefix: str) -> None:
    require_its_own(str(folder / prefix), prefix)


@pytest.mark.parametrize("prefix", ["web", *(pytest.param(prefix, marks=CUT_OFF) for prefix in PREFIXES[1:])])
def test_a_file_url_never_reads_what_it_does_not_name(folder: Path, prefix: str) -> None:
    require_its_own(f"file://{folder}/{prefix}", prefix)


@pytest.mark.parametrize("prefix", ["web", *(pytest.param(prefix, marks=CUT_OFF) for prefix in PREFIXES[1:])])
def test_an_azure_url_never_reads_what_it_does_not_name(azure: str, folder: Path, prefix: str) -> None:
    container = open_blobs(f"az://{azure}")
    for name in PREFIXES:
        container.upload(folder / name / "a.txt", f"{name}/a.txt")
    require_its_own(f"az://{azure}/{prefix}", prefix)


@pytest.mark.xfail(
    strict=True,
    raises=pytest.fail.Exception,
    reason="Nothing wrong in silence: file://data/raw, with two slashes, reads /raw",
)
def test_a_file_url_with_a_host_is_refused(folder: Path) -> None:
    with pytest.raises(InputError):
        open_blobs(f"file://data{folder}/web")


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Nothing wrong in silence: the signature of a pasted URL is kept in manifests",
)
def test_a_signature_in_a_url_is_kept_nowhere(azure: str, tmp_path: Path) -> None:
    pq.write_table(rated_texts(100), tmp_path / "a.parquet")
    open_blobs(f"az://{azure}").upload(tmp_path / "a.parquet", "web/a.parquet")
    pasted, root = f"az://{azure}/web?sv=2022-11-02&sp=rl&sig=PASTEDSIGNATURE", tmp_path / "root"
    try:
        build_index(Root(root), Pool(source=pasted), workers=1)
    except InputError as error:
        assert "PASTEDSIGNATURE" not in str(error)
    kept = [path.name for path in root.rglob("*") if path.is_file() and b"PASTEDSIGNATURE" in path.read_bytes()]
    assert kept == []


def account_signature() -> str:
    everything = ResourceTypes(service=True, container=True, object=True)
    end = datetime.now(UTC) + timedelta(hours=1)
    return generate_account_sas(ACCOUNT, PUBLIC_KEY, everything, AccountSasPermissions(read=True, list=True), end)


@pytest.mark.xfail(
    strict=True,
    raises=(InputError, StoreError),
    reason="Data as people have it: connection strings of the portal end in a slash, or name no account",
)
@pytest.mark.parametrize("kind", ["an endpoint with a slash", "a signature and no account"])
def test_connection_strings_work_as_the_portal_gives_them(
    azure: str, azurite_port: int, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_blobs(f"az://{azure}").upload(folder / "web/a.txt", "web/a.txt")
    endpoint = f"BlobEndpoint=http://127.0.0.1:{azurite_port}/{ACCOUNT}/"
    given = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={PUBLIC_KEY};{endpoint};"
    if kind == "a signature and no account":
        given = f"{endpoint};QueueEndpoint=http://127.0.0.1:1/;SharedAccessSignature={account_signature()}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", given)
    assert [blob.name for blob in open_blobs(f"az://{azure}/web").list()] == ["a.txt"]
