"""Opening the store behind a URL, with credentials from the environment (or a `.env` file), which are never logged.

Each cloud's own conventions hold: `azure` and `buckets` say which. hf:// takes HF_TOKEN or `hf auth login`.
"""

from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import LocalStore

from tasks.errors import InputError
from tasks.store import azure, buckets
from tasks.store.blobs import HURRIED, RETRIES, Blobs, brief
from tasks.store.settings import load_settings
from tasks.store.urls import parse_source, require_folder

READ_ONLY = ("hf", "http")


def local_path(url: str) -> Path | None:
    """The folder that a `file://` URL or a plain path names, else None. Raises InputError as `require_folder` does."""
    return require_folder(url).path


def open_blobs(url: str, hurried: bool = False) -> Blobs:
    """The store behind a URL; `hurried`: tell soon that it does not answer, rather than outlive it.

    Raises InputError when the URL or the credentials cannot be right, or its host does not exist.
    """
    place = parse_source(url)
    if place.path is not None:
        if not place.path.is_dir():
            raise InputError(f"The folder {place.path.absolute()} does not exist: check the URL {url}.")
        return Blobs(place, LocalStore(place.path.absolute()))
    load_settings()
    if place.kind == "hf":
        from tasks.store.hub import HubBlobs  # slow to import, and only this needs it

        return HubBlobs(place)
    if place.kind == "http":
        from tasks.store.web import WebBlobs

        return WebBlobs(place)
    opened = {"az": azure.open_store, "s3": buckets.open_s3, "gs": buckets.open_google}[place.kind]
    try:
        return Blobs(place, opened(place, HURRIED if hurried else RETRIES))
    except BaseError as error:
        raise InputError(f"{url} cannot be opened ({brief(error)}): copy its key or token again.") from error


def open_root(url: str) -> Blobs:
    """The store behind a root that is no folder of this machine. Raises InputError as `open_blobs` does, and where it is read only."""
    place = require_folder(url)
    if place.kind in READ_ONLY:
        raise InputError(f"The root {url} can only be read: give az://, s3://, gs:// or a folder.")
    return open_blobs(url)
