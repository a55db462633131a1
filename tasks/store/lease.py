"""Leases: which of several hosts that share a root may publish there.

Locks of a kernel end at its host. So a run's lease is kept on the root itself, as a folder of claims, `000001.json`,
`000002.json`, ... Who takes the lease creates the next number, which a store lets happen once; the highest number holds. It
is a fencing number: a holder that was cut off and succeeded finds a higher one before it publishes, and publishes nothing.
The holder writes its own claim anew every `RENEWAL` seconds. A claim that was not renewed for `TERM` seconds, by the store's clock, may
be succeeded.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.errors import BusyError, InputError, StoreError, SupersededError
from tasks.store.blobs import Blobs
from tasks.store.locks import PATIENCE
from tasks.store.machine import boot

TERM = 180.0
RENEWAL = 20.0
LOOK_SECONDS = 2.0
RELEASE_SECONDS = 10.0
"""How long the end of a process waits for a store that may be away."""
log = logging.getLogger(__name__)


class Lease:
    """A lease that this process holds: `number` is its fencing number."""

    def __init__(self, store: Blobs, name: str, what: str, folder: Path):
        self.number = 0
        self._store, self._name, self._place = store, name, _place(folder)
        self._what, self._thing = what, what[:1].lower() + what[1:]
        self._since = time.strftime("%F %T")
        self._superseded: str | None = None
        self._reached = True
        self._renewed = 0
        self._ended = threading.Event()

    def take(self, patience: float, term: float) -> None:
        """Become the holder: at once where the last one released it or was on this host, else when its claim has expired.

        The caller holds a lock in `folder`, so that a holder of the same folder and kernel is known to be gone. Raises
        BusyError naming the holder when it still renews its claim after `patience` seconds, StoreError when the store does not
        answer.
        """
        deadline = time.monotonic() + patience
        seen: str | None = None
        while True:
            number, etag = self._newest()
            claim = self._claim(number)
            free = not number or claim.get("released") or claim.get("place") == self._place
            if free or self._age(number) >= term:
                if self._create(number + 1):
                    self.number = number + 1
                    return
                continue  # another host was quicker
            if seen is None:
                log.info("Waiting for %s: %s.", self._thing, _words(claim))
            seen = seen or etag
            if etag != seen and time.monotonic() >= deadline:
                raise BusyError(f"{self._what} is in use by {_words(claim)}: wait for it or stop it, then run again.")
            time.sleep(min(LOOK_SECONDS, term / 4))

    def check(self) -> None:
        """Ask the store whether this lease still stands.

        Raises SupersededError naming the host that has taken it over, StoreError when the store does not answer.
        """
        number, _ = self._newest()
        if number > self.number and self._superseded is None:
            self._superseded = (
                f"{self._what} was taken over by {_words(self._claim(number))} while this host could not reach the root: this "
                f"attempt stops here, and what it did since is not published."
            )
        self.require()

    def require(self) -> None:
        """Raises SupersededError when it is known already that another host has taken the lease over."""
        if self._superseded is not None:
            raise SupersededError(self._superseded)

    @contextlib.contextmanager
    def kept(self, renewal: float) -> Iterator[None]:
        """Renew the claim on a thread while the block lasts, and release it at the end."""
        renewing = threading.Thread(target=self._renew, args=(renewal,), name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            self._ended.set()
            if self._reached and self._superseded is None:
                release = threading.Thread(target=self._release, name="lease", daemon=True)
                release.start()
                release.join(RELEASE_SECONDS)

    def _renew(self, renewal: float) -> None:
        while not self._ended.wait(renewal):
            try:
                self.check()
                self._write()
                if not self._reached:
                    log.info("%s is reached again, and %s is still this host's.", self._store.url, self._thing)
                self._reached = True
            except SupersededError as error:
                log.warning("%s", error)
                return
            except Exception as error:  # a store that is away must not stop the work
                if self._reached:
                    log.warning("The lease cannot be renewed, nothing is published until it can: %s", error)
                self._reached = False

    def _release(self) -> None:
        with contextlib.suppress(Exception):  # then it expires
            self._write(released=True)

    def _newest(self) -> tuple[int, str]:
        """The highest number and its ETag; 0 without claims.

        Raises StoreError when the store does not answer, or refuses: a credential is renewed outside the run.
        """
        try:
            claims = self._store.list(f"{self._name}/", suffix=".json")
        except InputError as error:
            raise StoreError(f"Nobody says who holds {self._thing}: {error}") from error
        found = [(int(stem), blob.etag) for blob in claims if (stem := Path(blob.name).stem).isdecimal()]
        return max(found, default=(0, ""))

    def _path(self, number: int) -> str:
        return f"{self._name}/{number:06d}.json"

    def _claim(self, number: int) -> Mapping[str, Any]:
        """Who made a claim; {} when it is being written."""
        raw = self._store.read_if_exists(self._path(number)) if number else None
        try:
            return dict(json.loads(raw or b"{}"))
        except ValueError:
            return {}

    def _content(self, released: bool) -> bytes:
        held_by = {"host": os.environ.get("FABRATING_WORKER") or socket.gethostname(), "pid": os.getpid()}
        claim = {**held_by, "since": self._since, "place": self._place, "released": released}
        return json.dumps(claim | {"renewed": self._renewed}).encode()

    def _create(self, number: int) -> bool:
        return self._store.create(self._path(number), self._content(False))

    def _write(self, released: bool = False) -> None:
        self._renewed += 1  # S3's ETag is that of the content: it tells a renewal if the content does
        self._store.write(self._path(self.number), self._content(released))

    def _age(self, number: int) -> float:
        """Seconds since a claim was renewed, by the store's own clock: hosts' clocks differ."""
        probe = f"{self._name}/{uuid.uuid4().hex}.now"
        self._store.write(probe, b"now")
        try:
            now, then = (self._store.changed(name) for name in (probe, self._path(number)))
        finally:
            self._store.delete(probe)
        return (now - then).total_seconds() if now and then else 0.0


@contextlib.contextmanager
def leased(store: Blobs, name: str, what: str, folder: Path) -> Iterator[Lease]:
    """Hold the lease `name` of a store, which stands for `what` (words for a person). Raises as `Lease.take` does.

    `folder`: where the caller holds a lock that stands for the same thing on this host.
    """
    lease = Lease(store, name, what, folder)
    lease.take(PATIENCE, TERM)
    with lease.kept(RENEWAL):
        yield lease


def _place(folder: Path) -> str:
    """What tells one locked folder from all others: this boot of this kernel, the file system, the folder's number there."""
    found = folder.stat()
    return f"{boot()}:{found.st_dev}:{found.st_ino}"


def _words(claim: Mapping[str, Any]) -> str:
    if "pid" not in claim:
        return "another host"
    return f"process {claim['pid']} on {claim['host']} since {claim['since']}"
