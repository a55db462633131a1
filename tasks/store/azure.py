"""Azure Blob Storage: account, endpoint and credential, from the environment in every form in which Azure shows them.

AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else Azure's
default credential chain (managed identity, `az login`, ...). adlfs's names, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY,
do as well. Connection strings:
https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
"""

import logging
import os
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.store import AzureStore, ObjectStore

from tasks.errors import InputError
from tasks.store.blobs import CLIENT
from tasks.store.reach import require_host
from tasks.store.settings import load_settings
from tasks.store.urls import ACCOUNT_HOST, Location

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken, AzureConfig, ClientConfig, RetryConfig

CONNECTION, ACCOUNT = "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"
OWN = (CONNECTION, ACCOUNT, "AZURE_STORAGE_ACCOUNT_NAME")
"""What names an account."""
KEYS = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN")
VARIABLES = (*OWN, *KEYS, "AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
"""All that says how to reach Azure."""
PUBLIC = "core.windows.net"
EARLY = timedelta(minutes=5)
EMULATOR_PORT = 10_000
EMULATOR = {
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}
"""The account of UseDevelopmentStorage=true; its key is printed in Azure's documentation."""


def azure_settings(place: Location) -> dict[str, str]:
    """Account, endpoint and credential, in the names that obstore uses: from the environment, the account also from `place`.

    Raises InputError when no account is named, or when the URL names another one than the environment.
    """
    load_settings()
    if connection := os.environ.get(CONNECTION):
        settings = _taken_apart(connection)
    else:
        settings = {
            "account_name": os.environ.get(ACCOUNT) or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", ""),
            "account_key": os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_ACCOUNT_KEY", ""),
            "sas_token": os.environ.get("AZURE_STORAGE_SAS_TOKEN", ""),
            "endpoint": os.environ.get("AZURE_STORAGE_BLOB_ENDPOINT", ""),
        }
    settings = {name: value.strip() for name, value in settings.items()}
    settings["sas_token"] = settings["sas_token"].lstrip("?")
    settings["endpoint"] = settings["endpoint"].rstrip("/")
    if not settings["account_name"]:
        settings["account_name"] = _account_of(settings["endpoint"])
    if place.account:
        known = settings["account_name"]
        if known and known != place.account:
            raise InputError(
                f"{place.url} is in the account {place.account}, but the environment signs in to {known}: set {ACCOUNT} and "
                f"its credential for {place.account}."
            )
        settings["account_name"] = place.account
        settings["endpoint"] = settings["endpoint"] or f"https://{place.account}.blob.{place.suffix}"
    settings = {name: value for name, value in settings.items() if value}
    if "account_name" not in settings:
        raise InputError(
            f"{place.url} needs a storage account: set {CONNECTION} or {ACCOUNT} in the environment or in a .env file."
        )
    return settings


def endpoint_of(settings: dict[str, str]) -> str:
    """Where the account is, without a slash at the end."""
    return settings.get("endpoint") or f"https://{settings['account_name']}.blob.{PUBLIC}"


def open_store(place: Location, retries: "RetryConfig") -> ObjectStore:
    """The container that a URL names. Raises InputError when the account cannot be right, or does not exist."""
    settings = azure_settings(place)
    endpoint = endpoint_of(settings)
    require_host(place.url, endpoint)
    client: ClientConfig = {**CLIENT}
    if endpoint.startswith("http://"):
        client["allow_http"] = True  # Azurite on loopback
    return AzureStore(
        place.container,
        prefix=place.folder or None,
        client_options=client,
        retry_config=retries,
        config=cast("AzureConfig", settings),
        credential_provider=None if settings.keys() & {"account_key", "sas_token"} else identity(),
    )


def _taken_apart(connection: str) -> dict[str, str]:
    """The parts of a connection string, whose keys may be in any case."""
    pairs = (part.split("=", 1) for part in connection.strip().strip("\"'").split(";") if "=" in part)
    parts = {name.strip().lower(): value.strip() for name, value in pairs}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        host = parts.get("developmentstorageproxyuri", "http://127.0.0.1").rstrip("/")
        parts = EMULATOR | {"blobendpoint": f"{host}:{EMULATOR_PORT}/{EMULATOR['accountname']}"}
    account, suffix = parts.get("accountname", ""), parts.get("endpointsuffix", "")
    protocol = parts.get("defaultendpointsprotocol", "https").lower()
    endpoint = parts.get("blobendpoint", "")
    if not endpoint and account and (suffix or protocol != "https"):
        endpoint = f"{protocol}://{account}.blob.{suffix or PUBLIC}"
    return {
        "account_name": account,
        "account_key": parts.get("accountkey", ""),
        "sas_token": parts.get("sharedaccesssignature", ""),
        "endpoint": endpoint,
    }


def _account_of(endpoint: str) -> str:
    """The account that an endpoint names: a part of its host, of an emulator the first part of its path, else the host, whose
    account does not matter where there is a signature.
    """
    url = urlsplit(endpoint)
    if found := ACCOUNT_HOST.match(url.netloc.lower()):
        return found[1]
    return url.path.strip("/").partition("/")[0] or url.hostname or ""


class Identity:
    """The credential chain as obstore asks it. `az` takes a second for a token and keeps none, and each link logs what it tried:
    so one token serves all stores of a process until it is about to end, and what goes wrong is in the exception alone.
    """

    def __init__(self) -> None:
        from obstore.auth.azure import AzureCredentialProvider  # asks azure-identity, slow to import

        for name in ("azure.identity", "azure.core"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._chain, self._lock = AzureCredentialProvider(), Lock()
        self._held: AzureBearerToken | None = None

    def __call__(self) -> "AzureBearerToken":
        with self._lock:
            if self._held is None or self._ends(self._held) < datetime.now(UTC) + EARLY:
                self._held = cast("AzureBearerToken", self._chain())
            return self._held

    def _ends(self, token: "AzureBearerToken") -> datetime:
        return token["expires_at"] or datetime.max.replace(tzinfo=UTC)


identity = cache(Identity)
