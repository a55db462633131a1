"""Small files at any URL that fsspec reads: lists that a person made. Azure's through adlfs, with the account of `access`."""

import fsspec

from tasks.errors import InputError
from tasks.store.access import azure_settings
from tasks.store.urls import SCHEME, parse_url, require_unsigned

LARGEST = 4 << 30


def read_file(url: str) -> bytes:
    """The content of one file: a path, az:// in all its spellings, https://, s3:// and what else fsspec has a package for.

    Raises InputError when it cannot be read, or is larger than 4 GiB.
    """
    require_unsigned(url)
    try:
        file = _open(url)
        with file as opened:
            content: bytes = opened.read(LARGEST + 1)
    except InputError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"The file {url} cannot be read ({reason}): check the URL and the credentials.") from error
    if len(content) > LARGEST:
        raise InputError(f"The file {url} is larger than 4 GiB: shorten it.")
    return content


def _open(url: str) -> "fsspec.core.OpenFile":
    found = SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    place = parse_url(url) if scheme in ("file", "az", "abfs", "abfss", "wasb", "wasbs") or ".blob." in url else None
    if place is None:
        return fsspec.open(url, "rb")
    if place.path is not None:
        return fsspec.open(str(place.path.absolute()), "rb", expand=False)
    settings = azure_settings(place)
    options: dict[str, str | bool | None] = {
        "account_name": settings.get("account_name"),
        "account_key": settings.get("account_key"),
        "sas_token": settings.get("sas_token"),
    }
    if endpoint := settings.get("endpoint"):
        options["connection_string"] = _connection(settings, endpoint)
    elif not (settings.get("account_key") or settings.get("sas_token")):
        options["anon"] = False  # Azure's default credential chain
    return fsspec.open(
        f"az://{place.container}/{place.folder}",
        "rb",
        expand=False,
        **{k: v for k, v in options.items() if v is not None},
    )


def _connection(settings: dict[str, str], endpoint: str) -> str:
    """A connection string: adlfs takes an endpoint, such as Azurite's, in no other way."""
    parts = {
        "AccountName": settings.get("account_name"),
        "AccountKey": settings.get("account_key"),
        "SharedAccessSignature": settings.get("sas_token"),
        "BlobEndpoint": endpoint,
    }
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)
