"""Opening the store behind a URL, with credentials from the environment (or a `.env` file), which are never logged.

AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else Azure's
default credential chain (managed identity, `az login`, ...).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, LocalStore, ObjectStore

from tasks.errors import InputError
from tasks.store.blobs import CLIENT, HURRIED, RETRIES, Blobs, brief
from tasks.store.settings import load_settings
from tasks.store.urls import ACCOUNT_HOST, Location, parse_source, require_folder

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig


def local_path(url: str) -> Path | None:
    """The folder that a `file://` URL or a plain path names, else None. Raises InputError as `require_folder` does."""
    return require_folder(url).path


def open_blobs(url: str, hurried: bool = False) -> Blobs:
    """The store behind a URL; `hurried`: tell soon that Azure does not answer, rather than outlive it.

    Raises InputError when the URL or the credentials cannot be right.
    """
    place = parse_source(url)
    if place.path is not None:
        if not place.path.is_dir():
            raise InputError(f"The folder {place.path} does not exist: check the URL {url}.")
        return Blobs(place, LocalStore(place.path.absolute()))
    if place.kind == "az":
        return Blobs(place, _azure(place, HURRIED if hurried else RETRIES))
    from tasks.store.hub import HubBlobs  # slow to import, and only this needs it

    return HubBlobs(place)


def azure_settings(place: Location) -> dict[str, str]:
    """Account, endpoint and credential, in the names that obstore uses: from the environment, the account also from `place`.

    Raises InputError when no account is named, or when the URL names another one than the environment.
    """
    load_settings()
    environment: Sequence[str] = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT")
    settings: dict[str, str] = {}
    if connection := os.environ.get(environment[0]):
        parts = dict(part.split("=", 1) for part in connection.strip().strip(";").split(";") if "=" in part)
        settings = {
            "account_name": parts.get("AccountName", ""),
            "account_key": parts.get("AccountKey", ""),
            "sas_token": parts.get("SharedAccessSignature", ""),
            "endpoint": parts.get("BlobEndpoint", ""),
        }
    else:
        settings = {
            "account_name": os.environ.get(environment[1], ""),
            "account_key": os.environ.get("AZURE_STORAGE_KEY", ""),
            "sas_token": os.environ.get("AZURE_STORAGE_SAS_TOKEN", "").lstrip("?"),
            "endpoint": os.environ.get("AZURE_STORAGE_BLOB_ENDPOINT", ""),
        }
    named = ACCOUNT_HOST.match(urlsplit(settings["endpoint"]).netloc.lower())
    if not settings["account_name"] and named:  # a SAS connection string has no AccountName
        settings["account_name"] = named[1]
    if place.account:
        known = settings["account_name"]
        if known and known != place.account:
            raise InputError(
                f"{place.url} is in the account {place.account}, but the environment signs in to {known}: set AZURE_STORAGE_ACCOUNT and "
                f"its credential for {place.account}."
            )
        settings["account_name"] = place.account
        settings["endpoint"] = settings["endpoint"] or f"https://{place.account}.blob.{place.suffix}"
    settings = {name: value for name, value in settings.items() if value}
    if "account_name" not in settings and not ("endpoint" in settings and os.environ.get(environment[0])):
        raise InputError(
            f"{place.url} needs a storage account: set {' or '.join(environment)} in the environment or in a .env file."
        )
    return settings


def _azure(place: Location, retries: "RetryConfig") -> ObjectStore:
    settings = azure_settings(place)
    client: ClientConfig = {**CLIENT}
    if settings.get("endpoint", "").startswith("http://"):
        client["allow_http"] = True  # Azurite on loopback
    provider = None
    if "account_key" not in settings and "sas_token" not in settings:
        from obstore.auth.azure import AzureCredentialProvider  # asks azure-identity, slow to import

        provider = AzureCredentialProvider()
    try:
        return AzureStore(
            place.container,
            prefix=place.folder or None,
            client_options=client,
            retry_config=retries,
            config=cast("AzureConfig", settings),
            credential_provider=provider,
        )
    except BaseError as error:
        raise InputError(
            f"{place.url} cannot be opened ({brief(error)}): copy the account's key or token again."
        ) from error
