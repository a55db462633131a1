"""Object stores behind one interface: a folder, a prefix of a container or bucket, a data set on the Hub, files of a web server.

Reads are ranged and can be tied to an ETag (`If-Match`), so that a blob that changes in mid-run is noticed. Names are
relative to the URL's prefix. `access.open_blobs` opens one.
"""

import contextlib
import hashlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore

from tasks.errors import ChangedError, DeniedError, InputError, StoreError, disk_fault
from tasks.store.artifact import safe_relative
from tasks.store.urls import Location

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, UpdateVersion
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig

CHUNK = 8 << 20
PAGE = 1_000
ATTEMPTS = 4
BEHIND_ITS_END = 416
"""HTTP status of a range that an object does not reach."""
PASSING = (408, 409, BEHIND_ITS_END, 429)
"""Of the statuses 400 to 499 those that no other URL or credential would mend."""
DENIED = (PermissionDeniedError, UnauthenticatedError, PermissionError)
GONE = (NotFoundError, FileNotFoundError)
BACKOFF: "BackoffConfig" = {"init_backoff": timedelta(seconds=1), "max_backoff": timedelta(seconds=15), "base": 2}
RETRIES: "RetryConfig" = {"max_retries": 15, "retry_timeout": timedelta(minutes=3), "backoff": BACKOFF}
"""About half a minute in all: the client's own six retries are over within 1.2 s, sooner than a busy store answers again."""
HURRIED: "RetryConfig" = {"max_retries": 1, "retry_timeout": timedelta(seconds=5), "backoff": BACKOFF}
CLIENT: "ClientConfig" = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10)}

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
    """A prefix of an object store.

    Whatever is asked of it raises DeniedError when the credential does not allow it, InputError when there is no such container or
    object, StoreError when the store does not answer; the client's own errors stay in here.
    """

    conditional = True
    """Whether a read asks for the ETag that was listed."""

    def __init__(self, place: Location, store: ObjectStore):
        self.place, self.url = place, place.base
        self.counters = Counters()
        self._store = store
        self._lock = Lock()
        self._proved = place.kind in ("file", "az")

    def address(self, name: str) -> str:
        """Where a blob lies, for messages."""
        return f"{self.url}/{name}"

    def count_with(self, other: "Blobs") -> None:
        """From now on count what goes over the wire together with `other`."""
        self.counters, self._lock = other.counters, other._lock

    def list(self, prefix: str = "", suffix: str = "") -> list[Blob]:
        """All blobs below `prefix` with names ending in `suffix`, by name; those alone that the URL's pattern takes.

        Raises InputError when there is no such container, DeniedError when it may not be listed, StoreError when the store
        does not answer.
        """
        with self._said("listed"):
            pages = self._single() or [item for page in obstore.list(self._store, prefix or None) for item in page]
        blobs = [Blob(i["path"], i["size"], i["e_tag"] or "") for i in pages if i["path"].endswith(suffix)]
        return sorted((blob for blob in blobs if self.place.takes(blob.name)), key=lambda blob: blob.name)

    def _single(self) -> "Sequence[ObjectMeta]":
        """What lies at the one name that the URL means: a file, or the files of a folder that is called like one."""
        if not self.place.single:
            return []
        with contextlib.suppress(*GONE):
            if (found := obstore.head(self._store, self.place.pattern))["size"]:  # else perhaps the marker of a folder
                return [found]
        return [item for page in obstore.list(self._store, self.place.pattern) for item in page]

    def peek(self) -> int:
        """How many blobs the first page of the listing has, at most `PAGE`: a look at the store. Raises as `list` does."""
        with self._said("listed"):
            return len(next(iter(obstore.list(self._store, chunk_size=PAGE)), ()))

    @contextlib.contextmanager
    def _said(self, what: str, name: str = "") -> Iterator[None]:
        """Translate the client's errors: the store, or the object `name`, cannot be `what` (listed, read, written, removed)."""
        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and disk_fault(error):  # of this machine
                raise
            raise self._fault(error, what, name) from error

    def _fault(self, error: Exception, what: str, name: str) -> InputError | StoreError:
        where, status = self.address(name) if name else self.place.url, _status(error)
        said = f"{where} cannot be {what} ({brief(error)})"
        if isinstance(error, DENIED) or status in (401, 403):
            return DeniedError(f"{said}: check or renew the credentials.")
        if isinstance(error, GONE) or (status and 400 <= status < 500 and status not in PASSING):
            return InputError(f"{said}: check the URL and the credentials.")
        if isinstance(error, InvalidPathError):
            return InputError(f"{said}: rename what has a tab, a line break or the like in its name.")
        return StoreError(f"{said}: the store does not answer as it should, try again later.")

    def read_range(self, blob: Blob, start: int, end: int) -> memoryview:
        """Bytes [start, end) of the blob as it was listed, tried `ATTEMPTS` times.

        Raises ChangedError when it is another one by now, DeniedError when it may not be read, StoreError when it cannot be.
        """
        options: GetOptions = {"range": (start, end)}
        if self._tied(blob):
            options["if_match"] = blob.etag
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
            try:
                answers = self._ask(
                    blob, lambda: obstore.get_ranges(self._store, blob.name, starts=starts, ends=ends, coalesce=0)
                )
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
            except GONE as error:
                raise ChangedError(f"{self.url}/{blob.name} is gone since it was indexed: run again.") from error
            except (BaseError, OSError) as error:
                # the client itself repeats requests that fail; this is for answers that break off in the middle
                if attempt == ATTEMPTS - 1 or isinstance(error, DENIED) or _status(error) == BEHIND_ITS_END:
                    raise self._fault(error, "read", blob.name) from error
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
        with self._said("read", name):
            try:
                data = bytes(obstore.get(self._store, name).bytes())
            except GONE:
                return None
        self._count(requests=1, bytes_read=len(data))
        return data

    def read_tagged(self, name: str) -> "tuple[bytes, UpdateVersion] | None":
        """A small object as a whole, and what tells it from others of that name (its ETag, of Google its generation), or None."""
        with self._said("read", name):
            try:
                found = obstore.get(self._store, name)
            except GONE:
                return None
            data = bytes(found.bytes())
        self._count(requests=1, bytes_read=len(data))
        tag: UpdateVersion = {}
        if found.meta["e_tag"]:
            tag["e_tag"] = found.meta["e_tag"]
        if found.meta["version"]:
            tag["version"] = found.meta["version"]
        return data, tag

    def upload(self, path: Path, name: str) -> str:
        """Copy a local file to `name`, in parallel blocks when large; returns its ETag. The object appears whole or not at all."""
        size = path.stat().st_size  # what is not on this machine is no fault of the store
        with self._said("written", name):
            put = obstore.put(self._store, str(safe_relative(name)), path, chunk_size=CHUNK)
        self._count(requests=1, bytes_written=size)
        return put["e_tag"] or ""

    def write(self, name: str, data: bytes) -> None:
        """Write a small object."""
        with self._said("written", name):
            obstore.put(self._store, str(safe_relative(name)), data)
        self._count(requests=1, bytes_written=len(data))

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object unless there is one of that name already: of several that try, one succeeds.

        Returns whether it was this call. An attempt whose answer was lost, and was repeated, counts as a success.
        """
        name, first = str(safe_relative(name)), False
        with self._said("written", name), contextlib.suppress(AlreadyExistsError, FileExistsError):
            if self.place.path is not None:  # not by way of hard links, which many mounted stores lack
                path = self.place.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                obstore.put(self._store, name, data, mode="create")
            first = True
        if not first:
            return self.read_if_exists(name) == data
        self._count(requests=1, bytes_written=len(data))
        return True

    def require_conditional(self) -> None:
        """See, once, that of two that create or replace an object only the first succeeds: leases, manifests and ledgers depend on it.

        Not all services with S3's protocol have that. Raises InputError where it is lacking, and as `list` does.
        """
        if self._proved:
            return
        name = f".fabrating-{secrets.token_hex(4)}"
        kept = self.create(name, b"first") and not self.create(name, b"second")
        if kept and (found := self.read_tagged(name)):
            kept = self.replace(name, b"third", found[1]) and not self.replace(name, b"fourth", found[1])
        with contextlib.suppress(InputError, StoreError):
            self.delete(name)
        if not kept:
            raise InputError(
                f"{self.url} cannot be a root: its service overwrites an object that it was asked to create (no If-None-Match or If-Match), so that "
                "two hosts would publish over each other; give another store."
            )
        self._proved = True

    def replace(self, name: str, data: bytes, tag: "UpdateVersion") -> bool:
        """Write a small object over the one that `read_tagged` told. Returns False when another one is there by now, or none."""
        with self._said("written", name):
            try:
                obstore.put(self._store, str(safe_relative(name)), data, mode=tag)
            except (PreconditionError, NotFoundError):
                return False
        self._count(requests=1, bytes_written=len(data))
        return True

    def changed(self, name: str) -> datetime | None:
        """When an object was written last, by the store's clock, or None when there is none."""
        with self._said("read", name), contextlib.suppress(*GONE):
            return obstore.head(self._store, name)["last_modified"]
        return None

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._said("removed", name), contextlib.suppress(*GONE):
            obstore.delete(self._store, str(safe_relative(name)))
        self._count(requests=1)

    def copy(self, blob: Blob, path: Path) -> None:
        """Copy a blob as it was listed to a local file, tried `ATTEMPTS` times. Raises as `read_range` does."""
        options: GetOptions = {"if_match": blob.etag} if self._tied(blob) else {}
        self._ask(blob, lambda: self._download(blob.name, path, options))

    def download(self, name: str, path: Path) -> str:
        """Copy an object to a local file by way of a temporary sibling; returns its ETag."""
        with self._said("read", name):
            return self._download(name, path)

    def _download(self, name: str, path: Path, options: "GetOptions | None" = None) -> str:
        temporary = path.with_name(f".{path.name}.download")
        size, found = 0, obstore.get(self._store, name, options=options)
        with temporary.open("wb") as file:
            for chunk in found.stream(min_chunk_size=CHUNK):
                size += file.write(chunk)
        temporary.replace(path)
        self._count(requests=1, bytes_read=size)
        return found.meta["e_tag"] or ""

    def sha256(self, name: str) -> str:
        """SHA-256 of an object, which is read as a whole."""
        digest, size = hashlib.sha256(), 0
        with self._said("read", name):
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=CHUNK):
                digest.update(chunk)
                size += len(chunk)
        self._count(requests=1, bytes_read=size)
        return digest.hexdigest()

    def _count(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status in a store's error: listings that are refused have no class of their own."""
    found = re.search(r"status code: (\d{3})\b", str(error))
    return int(found[1]) if found else None


def brief(error: Exception) -> str:
    """What the store said: its status and Azure's word for it, else the first line, without a request that can hold a signature."""
    if status := _status(error):
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        return f"status {status}" + (f", {code[1]}" if code else "")
    return str(error).strip().splitlines()[0].split("?", 1)[0][:200]
