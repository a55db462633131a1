"""Credentials and stores: what is configured, and whether the store lets us in. A secret is never part of what is said."""

import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

from infra.doctor.finding import Finding
from infra.local import azurite
from tasks.errors import DeniedError, InputError, StoreError
from tasks.reports.wandb_run import NEW_KEY, api_key, is_refused
from tasks.store.access import local_path, open_blobs
from tasks.store.azure import azure_settings
from tasks.store.blobs import PAGE
from tasks.store.urls import parse_url

CONFIGURE = "name the account in .env (docs/data.md); for the local stack: . .fabrating/env"
RENEW = {
    "account_key": "copy the key again from the account's page (Access keys) into .env",
    "sas_token": "make a new SAS token (read and list; where results go also write and delete) and put it into .env",
    "": "az login; or give this machine's identity the role Storage Blob Data Contributor on the account",
}

BUCKETS = {
    "s3": "put AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION into .env, or run aws configure",
    "gs": "gcloud auth application-default login, or put GOOGLE_APPLICATION_CREDENTIALS (a key file) into .env",
}


def credentials() -> Finding:
    """Which storage account is configured, and how it is signed in to."""
    what = "credentials"
    try:
        settings = azure_settings(parse_url("az://any"))
    except InputError:
        if given := sorted(name for name in os.environ if name.startswith("AZURE_STORAGE_")):
            return Finding(what, "bad", f"no account is named by {', '.join(given)}", CONFIGURE)
        return Finding(what, "note", "no storage account is configured", CONFIGURE)
    account = settings.get("account_name") or settings["endpoint"]
    kind = _kind(settings)
    if kind == "sas_token":
        return _sas(what, account, settings["sas_token"])
    if account == azurite.ACCOUNT and kind == "account_key":
        published = settings["account_key"] == azurite.PUBLIC_KEY
        return Finding(what, "good", f"the emulator Azurite with {'its public' if published else 'a'} key")
    how = "its key" if kind else "managed identity or az login"
    return Finding(what, "good", f"account {account} with {how}")


def wandb() -> Finding:
    """Whether runs can be sent to Weights & Biases."""
    key = api_key()
    if key is None:
        return Finding("W&B", "note", "no key: runs are kept offline", "to send them, put WANDB_API_KEY=... into .env")
    if is_refused(key):
        return Finding("W&B", "bad", "the key is refused: runs are kept offline", NEW_KEY)
    return Finding("W&B", "good", "there is a key")


def look(what: str, url: str, write: bool = False) -> Finding:
    """List the first page of a store, and with `write` put an empty object there and remove it."""
    remedy = "check the URL"
    try:
        folder = local_path(url)
        if folder is not None and write:
            return _folder(what, folder)
        remedy = BUCKETS.get(parse_url(url).kind, remedy)
        if parse_url(url).kind == "az":
            remedy = CONFIGURE
            remedy = RENEW[_kind(azure_settings(parse_url(url)))]
        blobs = open_blobs(url, hurried=True)
    except (InputError, StoreError) as error:
        return Finding(what, "bad", str(error), remedy)
    try:
        count = blobs.peek()
    except DeniedError as error:
        return Finding(what, "bad", str(error), remedy)
    except InputError as error:
        place = parse_url(url)
        kind = "container" if place.kind == "az" else "bucket"
        return Finding(what, "bad", str(error), f"make the {kind} {place.container}, or mend the URL")
    except StoreError as error:
        return Finding(what, "bad", str(error), "check the account's name, the network, and a proxy or firewall")
    amount = f"{count}{' or more' if count == PAGE else ''} objects" if count else "empty"
    if not write:
        if count:
            return Finding(what, "good", f"{url} can be listed: {amount}")
        return Finding(what, "bad", f"{url} can be listed, but holds nothing", "check the folder or prefix in the URL")
    name = f".doctor-{secrets.token_hex(4)}"
    try:
        blobs.require_conditional()
        blobs.write(name, b"")
        blobs.delete(name)
    except (DeniedError, StoreError):
        return Finding(
            what,
            "bad",
            f"{url} can be listed, but not written and cleaned",
            "give the credential the rights write and delete (in Azure: role Storage Blob Data Contributor)",
        )
    except InputError as error:
        return Finding(what, "bad", str(error), "give another root")
    return Finding(what, "good", f"{url} can be listed and written: {amount}")


def _folder(what: str, folder: Path) -> Finding:
    """A local root: it is made when it is needed, so that the folder above it counts where it is not there yet."""
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding(what, "good", f"{folder} can be written")
    return Finding(what, "bad", f"{place} is no folder that can be written", "give another root, or mend its rights")


def _kind(settings: dict[str, str]) -> str:
    """Which credential is used: a key before a SAS token; "" for an identity."""
    return next((name for name in ("account_key", "sas_token") if settings.get(name)), "")


def _sas(what: str, account: str, token: str) -> Finding:
    fields = {name: values[0] for name, values in parse_qs(token).items()}
    found, ends = f"account {account} with a SAS token", None
    if rights := fields.get("sp"):
        found += f", rights {rights}"
    with suppress(KeyError, ValueError):
        ends = datetime.fromisoformat(fields["se"])
        ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    if ends is None:
        return Finding(what, "good", found)
    over = ends <= datetime.now(UTC)
    found += f", which {'ended' if over else 'ends'} {ends:%F %H:%M %Z}"
    return Finding(what, "bad", found, RENEW["sas_token"]) if over else Finding(what, "good", found)
