"""Small files at any URL that fsspec reads: lists that a person made, results for a notebook. Azure's through adlfs, with the account
of `azure`; buckets and the Hub through their own client. Never for ranges: for three columns adlfs's default cache reads three times
the whole data.
"""

from typing import Any

import fsspec

from tasks.errors import InputError
from tasks.store.access import open_blobs
from tasks.store.azure import azure_settings
from tasks.store.urls import ALIASES, SCHEME, Location, parse_url, require_unsigned

LARGEST = 4 << 30
OURS = ("az", "wasb", "wasbs", "s3", "gs", "hf", "file")
"""Schemes that name a place of `urls`; fsspec opens all others."""


def read_file(url: str) -> bytes:
    """The content of one file: a path, az:// in all its spellings, s3://, gs://, hf://, https:// and what else fsspec has a package for.

    Raises InputError when it cannot be read, or is larger than 4 GiB.
    """
    require_unsigned(url)
    try:
        content = _read(url)
    except InputError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"The file {url} cannot be read ({reason}): check the URL and the credentials.") from error
    if len(content) > LARGEST:
        raise InputError(f"The file {url} is larger than 4 GiB: shorten it.")
    return content


def storage_options(url: str) -> dict[str, Any]:
    """What adlfs needs to open an az:// URL, for pandas, Polars and Dask: `pandas.read_parquet(url, storage_options=storage_options(url))`."""
    return _adlfs(parse_url(url))


def _read(url: str) -> bytes:
    place = _place(url)
    if place is None:
        file = fsspec.open(url, "rb")
    elif place.kind == "az":
        file = fsspec.open(f"az://{place.container}/{place.folder}", "rb", expand=False, **_adlfs(place))
    elif place.path is not None:
        file = fsspec.open(str(place.path.absolute()), "rb", expand=False)
    else:
        folder, _, name = url.rpartition("/")
        content = open_blobs(folder).read_if_exists(name)
        if content is None:
            raise FileNotFoundError("it is not there")
        return content
    with file as opened:
        found: bytes = opened.read(LARGEST + 1)
        return found


def _place(url: str) -> Location | None:
    found = SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    ours = ALIASES.get(scheme, scheme) in OURS or ".blob." in url
    return parse_url(url) if ours else None


def _adlfs(place: Location) -> dict[str, Any]:
    settings = azure_settings(place)
    options: dict[str, Any] = {name: settings.get(name) for name in ("account_name", "account_key", "sas_token")}
    if endpoint := settings.get("endpoint"):
        options["connection_string"] = _connection(settings, endpoint)
    elif not (settings.get("account_key") or settings.get("sas_token")):
        options["anon"] = False  # Azure's default credential chain
    return {name: value for name, value in options.items() if value is not None}


def _connection(settings: dict[str, str], endpoint: str) -> str:
    """A connection string: adlfs takes an endpoint, such as Azurite's, in no other way."""
    parts = {
        "AccountName": settings.get("account_name"),
        "AccountKey": settings.get("account_key"),
        "SharedAccessSignature": settings.get("sas_token"),
        "BlobEndpoint": endpoint,
    }
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)
