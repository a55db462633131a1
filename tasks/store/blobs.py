"""Object stores behind one interface: a folder, a prefix of Azure Blob Storage, a data set on the Hub (see `urls`).

Reads are ranged and can be tied to an ETag (`If-Match`), so that a blob which changes in mid-run is noticed. Names are
relative to the URL's prefix. Credentials come from the environment (or a `.env` file) and are never logged:
AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else Azure's
default credential chain (managed identity, `az login`, ...).
"""

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import obstore
from dotenv import load_dotenv
from obstore.exceptions import NotFoundError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, LocalStore, ObjectStore

from tasks.errors import ChangedError, DeniedError, InputError, StoreError
from tasks.store.artifact import safe_relative
from tasks.store.urls import Location, parse_url, require_folder

CHUNK = 8 << 20
PAGE = 1_000
ATTEMPTS = 4
BEHIND_ITS_END = 416
"""HTTP status of a range that an object does not reach."""
DENIED = (PermissionDeniedError, UnauthenticatedError, PermissionError)
BACKOFF = {"init_backoff": timedelta(seconds=1), "max_backoff": timedelta(seconds=15), "base": 2}
RETRIES = {"max_retries": 15, "retry_timeout": timedelta(minutes=3), "backoff": BACKOFF}
"""About half a minute in all: the client's own six retries are over within 1.2 s, sooner than a busy store answers again."""
HURRIED = {"max_retries": 1, "retry_timeout": timedelta(seconds=5), "backoff": BACKOFF}
CLIENT = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10)}

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Blob:
    """One object: name relative to the store's URL, size in bytes, ETag."""

    name: str
    size: int
    etag: str


@dataclass
class Counters:
    """What went over the wire, for reports."""

    requests: int = 0
    retries: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Blobs:
    """A prefix of an object store."""

    conditional = True
    """Whether a read asks for the ETag that was listed."""

    def __init__(self, url: str, store: ObjectStore, place: Location | None = None):
        self.url = url
        self.place = place or parse_url(url)
        self.counters = Counters()
        self._store = store
        self._lock = Lock()

    def list(self, prefix: str = "", suffix: str = "") -> list[Blob]:
        """All blobs below `prefix` with names ending in `suffix`, by name; those alone that the URL's pattern takes.

        Raises InputError when there is no such container, DeniedError when it may not be listed, StoreError when the store
        does not answer.
        """
        with self._listing():
            pages = [item for page in obstore.list(self._store, prefix or None) for item in page]
        blobs = [Blob(i["path"], i["size"], i["e_tag"] or "") for i in pages if i["path"].endswith(suffix)]
        return sorted((blob for blob in blobs if self.place.takes(blob.name)), key=lambda blob: blob.name)

    def peek(self) -> int:
        """How many blobs the first page of the listing has, at most `PAGE`: a look at the store. Raises as `list` does."""
        with self._listing():
            return len(next(iter(obstore.list(self._store, chunk_size=PAGE)), ()))

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionError, obstore.exceptions.BaseError, OSError) as error:
            what, status = f"{self.url} cannot be listed ({_brief(error)})", _status(error)
            if isinstance(error, DENIED) or status in (401, 403):
                raise DeniedError(f"{what}: check or renew the credentials.") from error
            if isinstance(error, NotFoundError | FileNotFoundError) or (status and 400 <= status < 500):
                raise InputError(f"{what}: check the URL and the credentials.") from error
            raise StoreError(f"{what}: the store does not answer as it should, try again later.") from error

    def read_range(self, blob: Blob, start: int, end: int) -> memoryview:
        """Bytes [start, end) of the blob as it was listed, tried `ATTEMPTS` times.

        Raises ChangedError when it is another one by now, DeniedError when it may not be read, StoreError when it cannot be.
        """
        options = {"range": (start, end)} | ({"if_match": blob.etag} if self._tied(blob) else {})
        data = self._ask(blob, lambda: memoryview(obstore.get(self._store, blob.name, options=options).bytes()))
        return self._counted(blob, [(start, end)], [data])[0]

    def read_ranges(self, blob: Blob, ranges: Sequence[tuple[int, int]]) -> Sequence[memoryview]:
        """Several ranges [start, end) of the blob as it was listed, side by side. Raises as `read_range` does.

        The last is tied to the ETag and asked for when the others are there: a blob that still has the ETag of its listing had it
        all the time. The others are one call of the client, ten at a time, which costs a fifth of the time of a call for each.
        """
        first = ranges[:-1] if self._tied(blob) else ranges
        last = ranges[len(first) :]
        found: Sequence[memoryview] = ()
        if first:
            starts, ends = zip(*first, strict=True)
            options = {"starts": starts, "ends": ends, "coalesce": 0}
            try:
                answers = self._ask(blob, lambda: obstore.get_ranges(self._store, blob.name, **options))
            except StoreError as error:
                if _status(error.__cause__) == BEHIND_ITS_END or isinstance(self._store, LocalStore):
                    for start, end in last:  # says so if it is another, shorter blob by now
                        self.read_range(blob, start, end)
                raise
            found = self._counted(blob, first, [memoryview(answer) for answer in answers])
        return [*found, *(self.read_range(blob, start, end) for start, end in last)]

    def _tied(self, blob: Blob) -> bool:
        return self.conditional and bool(blob.etag)

    def _ask(self, blob: Blob, ask: Callable[[], Answer]) -> Answer:
        """What the client answers, asked `ATTEMPTS` times. Raises as `read_range` does."""
        for attempt in range(ATTEMPTS):
            try:
                return ask()
            except PreconditionError as error:
                raise ChangedError(f"{self.url}/{blob.name} has changed since it was indexed: run again.") from error
            except (NotFoundError, FileNotFoundError) as error:
                raise ChangedError(f"{self.url}/{blob.name} is gone since it was indexed: run again.") from error
            except DENIED as error:
                raise DeniedError(
                    f"{self.url}/{blob.name} cannot be read ({_brief(error)}): check or renew the credentials."
                ) from error
            except (obstore.exceptions.BaseError, OSError) as error:
                # the client itself repeats requests that fail; this is for answers that break off in the middle
                if attempt == ATTEMPTS - 1 or _status(error) == BEHIND_ITS_END:
                    raise StoreError(f"{self.url}/{blob.name} cannot be read ({_brief(error)})") from error
                self._count(retries=1)
                time.sleep(random.uniform(0.5, 1.0) * 2**attempt)
        raise AssertionError("the loop returns or raises")

    def _counted(
        self, blob: Blob, ranges: Sequence[tuple[int, int]], answers: Sequence[memoryview]
    ) -> Sequence[memoryview]:
        self._count(requests=len(answers), bytes_read=sum(map(len, answers)))
        if any(len(data) != end - start for (start, end), data in zip(ranges, answers, strict=True)):
            raise ChangedError(f"{self.url}/{blob.name} is shorter than when it was indexed: run again.")
        return answers

    def read_if_exists(self, name: str) -> bytes | None:
        """A small object as a whole, or None."""
        try:
            data = bytes(obstore.get(self._store, name).bytes())
        except (NotFoundError, FileNotFoundError):
            return None
        self._count(requests=1, bytes_read=len(data))
        return data

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to `name`; large files in parallel blocks. The object appears whole or not at all."""
        obstore.put(self._store, str(safe_relative(name)), path, chunk_size=CHUNK)
        self._count(requests=1, bytes_written=path.stat().st_size)

    def write(self, name: str, data: bytes) -> None:
        """Write a small object."""
        obstore.put(self._store, str(safe_relative(name)), data)
        self._count(requests=1, bytes_written=len(data))

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._store, str(safe_relative(name)))
        self._count(requests=1)

    def download(self, name: str, path: Path) -> None:
        """Copy an object to a local file by way of a temporary sibling."""
        temporary = path.with_name(f".{path.name}.download")
        size = 0
        with temporary.open("wb") as file:
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=CHUNK):
                size += file.write(chunk)
        temporary.replace(path)
        self._count(requests=1, bytes_read=size)

    def _count(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)


def local_path(url: str) -> Path | None:
    """The folder that a `file://` URL or a plain path names, else None. Raises InputError as `require_folder` does."""
    return require_folder(url).path


def open_blobs(url: str, hurried: bool = False) -> Blobs:
    """The store behind a URL; `hurried`: tell soon that Azure does not answer, rather than outlive it.

    Raises InputError when the URL or the credentials cannot be right.
    """
    place = parse_url(url)
    if place.path is not None:
        if not place.path.is_dir():
            raise InputError(f"The folder {place.path} does not exist: check the URL {url}.")
        return Blobs(url, LocalStore(place.path.absolute()), place)
    if place.kind == "az":
        return Blobs(url, _azure(place, url, HURRIED if hurried else RETRIES), place)
    from tasks.store.hub import HubBlobs  # slow to import, and only this needs it

    return HubBlobs(url, place)


def azure_settings(url: str) -> dict[str, str]:
    """Account, endpoint and credential, in the names that obstore uses: from the environment, the account also from the URL.

    Raises InputError when no account is named, or when the URL names another one than the environment.
    """
    load_dotenv()
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
    place = parse_url(url)
    if place.account:
        known = settings["account_name"]
        if known and known != place.account:
            raise InputError(
                f"{url} is in the account {place.account}, but the environment signs in to {known}: set AZURE_STORAGE_ACCOUNT and "
                f"its credential for {place.account}."
            )
        settings["account_name"] = place.account
        settings["endpoint"] = settings["endpoint"] or f"https://{place.account}.blob.{place.suffix}"
    settings = {name: value for name, value in settings.items() if value}
    if "account_name" not in settings and not ("endpoint" in settings and os.environ.get(environment[0])):
        raise InputError(
            f"{url} needs a storage account: set {' or '.join(environment)} in the environment or in a .env file."
        )
    return settings


def _azure(place: Location, url: str, retries: Mapping[str, Any]) -> ObjectStore:
    settings = azure_settings(url)
    client = dict(CLIENT)
    if settings.get("endpoint", "").startswith("http://"):
        client["allow_http"] = True  # Azurite on loopback
    extra = {}
    if "account_key" not in settings and "sas_token" not in settings:
        from obstore.auth.azure import AzureCredentialProvider  # asks azure-identity, slow to import

        extra["credential_provider"] = AzureCredentialProvider()
    try:
        return AzureStore(
            place.container,
            prefix=place.folder or None,
            client_options=client,
            retry_config=retries,
            **settings,
            **extra,
        )
    except obstore.exceptions.BaseError as error:
        raise InputError(f"{url} cannot be opened ({_brief(error)}): copy the account's key or token again.") from error


def _status(error: Exception) -> int | None:
    """The HTTP status in a store's error: listings that are refused have no class of their own."""
    found = re.search(r"status code: (\d{3})\b", str(error))
    return int(found[1]) if found else None


def _brief(error: Exception) -> str:
    """What the store said: its status and Azure's word for it, else the first line, without a request that can hold a signature."""
    if status := _status(error):
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        return f"status {status}" + (f", {code[1]}" if code else "")
    return str(error).strip().splitlines()[0].split("?", 1)[0][:200]
