"""URLs are read as they are written: no character of a name is lost, no other data is read, no signature is kept."""

from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from pydantic import ValidationError

from infra.local import azurite
from infra.local.azurite import ACCOUNT, PUBLIC_KEY
from tasks.errors import InputError
from tasks.spec import Pool, Texts
from tasks.store import azure as access_azure
from tasks.store.access import open_blobs
from tasks.store.azure import azure_settings, endpoint_of
from tasks.store.bulk import copy_blobs, find_azcopy
from tasks.store.files import read_file
from tasks.store.root import Root
from tasks.store.urls import Location, parse_url
from tests.azure_signature import account_signature

ODD = ["web", "web#2", "web?3", "web%41", "web a", "wéb"]
SIGNED = "https://acme.blob.core.windows.net/raw/web?sv=2022-11-02&sp=rl&sig=SECRETSIGNATURE"


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("az://raw/web#2?new%41", Location("az", "web#2?new%41", "raw")),
        ("AZ://raw", Location("az", "", "raw")),
        ("https://acme.blob.core.windows.net/raw/a%20b%23", Location("az", "a b#", "raw", "acme", "core.windows.net")),
        ("abfss://raw@acme.dfs.core.windows.net/web", Location("az", "web", "raw", "acme", "core.windows.net")),
        ("wasbs://raw@acme.blob.core.chinacloudapi.cn/", Location("az", "", "raw", "acme", "core.chinacloudapi.cn")),
        ("file:///data/a%20b#2?x", Location("file", "/data/a b#2?x")),
        ("file://localhost/data", Location("file", "/data")),
        ("FILE:///data", Location("file", "/data")),
        ("/data/web#2?x%41", Location("file", "/data/web#2?x%41")),
        ("az://raw/web/part-0*.parquet", Location("az", "web", "raw", pattern="part-0*.parquet")),
        ("hf://org/set@main/data", Location("hf", "org/set@main/data")),
        ("abfs://raw/web", Location("az", "web", "raw")),
        ("az://raw@acme.blob.core.windows.net/web", Location("az", "web", "raw", "acme", "core.windows.net")),
        ("s3://raw/web#2/*.parquet", Location("s3", "web#2", "raw", pattern="*.parquet")),
        ("s3a://raw/web", Location("s3", "web", "raw")),
        ("gcs://raw", Location("gs", "", "raw")),
        ("https://example.com/a%20b/files.txt", Location("http", "a b/files.txt", "https://example.com")),
    ],
)
def test_what_a_url_names(url, meant):
    assert parse_url(url) == meant


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://data/raw", r"names a host, 'data'.*file:///data/raw"),
        ("ftp://host/x", "and is not supported"),
        ("s3:///x", "names no bucket"),
        ("https://example.com/raw", "a web server, which lists no files: name a list"),
        ("az:///prefix", "names no container"),
        ("az:/raw/web", "a blank before it or one slash too few"),
        (" az://raw/web", "a blank before it or one slash too few"),
        ("wasbs://raw/web", "names no storage account"),
        ("", "is empty"),
        ("https://acme.blob.core.windows.net/raw/web?snapshot=2026-01-01", "has a query"),
        ("https://acme.blob.core.windows.net/raw/part%2A", r"a name with a `\*`"),
        ("file:///data/part%2a", r"a name with a `\*`"),
    ],
)
def test_urls_that_cannot_be_meant_are_refused(url, said):
    with pytest.raises(InputError, match=said):
        parse_url(url)


def test_a_folder_of_that_very_name_is_read(tmp_path):
    for name in ODD:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.parquet").write_text(name)
    for name in ODD:
        for url in (f"{tmp_path}/{name}", (tmp_path / name).as_uri()):
            store = open_blobs(url)
            assert [bytes(store.read_range(blob, 0, blob.size)).decode() for blob in store.list()] == [name]
    assert Root(f"{tmp_path}/web#2").folder == tmp_path / "web#2"


def test_a_prefix_of_that_very_name_is_read(azurite_port, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    service = BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port))
    container = service.create_container("odd-names")
    for name in ODD:
        container.upload_blob(f"{name}/a#1?%.parquet", name.encode(), overwrite=True)
    for name in ODD:
        store = open_blobs(f"az://odd-names/{name}")
        assert [(blob.name, bytes(store.read_range(blob, 0, blob.size)).decode()) for blob in store.list()] == [
            ("a#1?%.parquet", name)
        ]
        store.write("b.txt", b"there")
        assert container.download_blob(f"{name}/b.txt").readall() == b"there"


@pytest.mark.skipif(find_azcopy() is None, reason="azcopy is not installed")
def test_azcopy_copies_from_a_prefix_of_that_very_name(azurite_port, monkeypatch, tmp_path):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(azurite_port))
    service = BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port))
    container = service.create_container("odd-copies")
    for name in ("web", "web#2"):
        container.upload_blob(f"{name}/a.parquet", name.encode(), overwrite=True)
    url = "az://odd-copies/web#2"
    copy_blobs(url, open_blobs(url).list(), tmp_path / "copy")
    assert (tmp_path / "copy/a.parquet").read_text() == "web#2"


def test_a_pattern_takes_the_names_that_match_it(tmp_path):
    for name in ("part-00.parquet", "part-10.parquet", "below/part-01.parquet", "below/x.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = lambda pattern: [blob.name for blob in open_blobs(f"{tmp_path}/{pattern}").list()]  # noqa: E731
    assert listed("part-0*.parquet") == ["part-00.parquet"]
    assert listed("**/part-*.parquet") == ["below/part-01.parquet", "part-00.parquet", "part-10.parquet"]
    assert listed("*/x.parquet") == ["below/x.parquet"]
    with pytest.raises(InputError, match="must name one folder"):
        Root(f"{tmp_path}/part-*")


@pytest.mark.parametrize("make", [lambda url: Pool(source=url), lambda url: Texts(url=url), parse_url, Root])
@pytest.mark.parametrize("url", [SIGNED, "az://raw/web?sig=SECRETSIGNATURE", "az://raw/web%3FSIG%3DSECRETSIGNATURE"])
def test_a_signature_is_refused_and_not_repeated(make, url):
    with pytest.raises((InputError, ValidationError), match="carries a signature") as caught:
        make(url)
    assert "SECRETSIGNATURE" not in str(caught.value)


def test_the_schema_of_a_form_refuses_a_signature():
    """The server checks parameters by it before it stores them."""
    import jsonschema

    schema = Pool.model_json_schema()
    jsonschema.validate({"source": "az://raw/web#2"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"source": "az://raw/web?sv=1&sig=x"}, schema)


def test_the_account_of_a_url_is_used_and_another_one_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_BLOB_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    url = "abfss://raw@acme.dfs.core.windows.net/web"
    assert azure_settings(parse_url(url)) == {
        "account_name": "acme",
        "account_key": "a2V5",
        "endpoint": "https://acme.blob.core.windows.net",
    }
    with pytest.raises(InputError, match="needs a storage account"):
        azure_settings(parse_url("az://raw/web"))
    connection = "BlobEndpoint=https://other.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    with pytest.raises(InputError, match="in the account acme, but the environment signs in to other"):
        azure_settings(parse_url(url))
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "other")
    with pytest.raises(InputError, match="in the account acme, but the environment signs in to other"):
        azure_settings(parse_url(url))


@pytest.fixture
def folder(tmp_path):
    """A folder with one file."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.txt").write_text("web")
    return tmp_path


FORMS = {
    "an endpoint with a slash": "DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint={endpoint}/;",
    "a signature and no account": "BlobEndpoint={endpoint}/;QueueEndpoint=http://127.0.0.1:1/;SharedAccessSignature={sas}",
    "a signature that begins with ?": "SharedAccessSignature=?{sas};BlobEndpoint={endpoint};",
    "keys in any case": "accountname={account};ACCOUNTKEY={key};blobEndpoint={endpoint}",
    "in quotes, with blanks": '"AccountName={account}; AccountKey={key}; BlobEndpoint={endpoint}"',
    "the emulator on another host": "UseDevelopmentStorage=true;DevelopmentStorageProxyUri={proxy}",
}


@pytest.mark.parametrize("form", FORMS)
def test_connection_strings_work_as_azure_prints_them(
    azure: str, azurite_port: int, form: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator's own form names port 10000, where another server may be: there its port stands in for it."""
    open_blobs(f"az://{azure}").upload(folder / "web/a.txt", "web/a.txt")
    parts = {"account": ACCOUNT, "key": PUBLIC_KEY, "endpoint": f"http://127.0.0.1:{azurite_port}/{ACCOUNT}"}
    monkeypatch.setattr(access_azure, "EMULATOR_PORT", azurite_port)
    given = FORMS[form].format(**parts, sas=account_signature(), proxy="http://127.0.0.1")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", given)
    assert [blob.name for blob in open_blobs(f"az://{azure}/web").list()] == ["a.txt"]
    assert read_file(f"az://{azure}/web/a.txt") == b"web"


@pytest.mark.parametrize(
    ("connection", "endpoint"),
    [
        ("UseDevelopmentStorage=true", f"http://127.0.0.1:10000/{ACCOUNT}"),
        ("AccountName=acme;AccountKey=a2V5", "https://acme.blob.core.windows.net"),
        (
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn",
            "https://acme.blob.core.chinacloudapi.cn",
        ),
        (
            "AccountName=acme;AccountKey=a2V5;EndpointSuffix=core.usgovcloudapi.net",
            "https://acme.blob.core.usgovcloudapi.net",
        ),
        ("BlobEndpoint=https://data.acme.org/;SharedAccessSignature=sv=1&sig=x", "https://data.acme.org"),
    ],
)
def test_a_connection_string_names_an_endpoint(connection: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    assert endpoint_of(azure_settings(parse_url("az://raw"))) == endpoint
