"""A folder that several hosts share: its files on this machine, the store behind it, and the lease to publish there.

Of a `file://` URL the folder is the place itself. Any other URL has a folder on this machine in front of it, and what is
written passes through that.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import InputError, StoreError
from tasks.store.access import open_blobs, open_root
from tasks.store.artifact import fingerprint, safe_relative, write_atomic
from tasks.store.blobs import Blobs
from tasks.store.lease import Lease, leased
from tasks.store.locks import locked
from tasks.store.urls import require_folder

if TYPE_CHECKING:
    from obstore import UpdateVersion

FIRST = "or prepare an arm there first"
EDITS = 50  # attempts to write a small file that other hosts write, too


def url_of(url: str | Path) -> str:
    """A folder's URL in one form, whether it is there or not. Raises InputError as `require_folder` does."""
    local = require_folder(str(url)).path
    return local.absolute().as_uri() if local is not None else str(url).rstrip("/")


class SharedFolder:
    """`url` is a folder, `file:///folder`, or az://, s3:// or gs:// with container and prefix.

    `cache` is the local folder for a remote one (default: FABRATING_CACHE, else `.fabrating/cache`). Without `make` a folder
    that is not there raises InputError instead of being made, and so does a remote one that holds nothing.
    """

    def __init__(self, url: str | Path, cache: Path | None, make: bool):
        local, self.url = require_folder(str(url)).path, url_of(url)
        self.remote: Blobs | None = None
        self._lease: Lease | None = None
        if local is not None:
            self.folder = local.absolute()
            if not make and not self.folder.is_dir():
                raise InputError(f"There is no root {self.folder}: check the name of the folder, {FIRST}.")
        else:
            base = cache or Path(os.environ.get("FABRATING_CACHE", ".fabrating/cache"))
            self.folder = base.absolute() / fingerprint(self.url)
            self.remote = open_root(self.url)
            if not make and not self.folder.is_dir() and not self.remote.peek():
                raise InputError(f"There is no root {self.url}, nothing lies there: check the URL, {FIRST}.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The root {url} cannot be used ({error}): give a folder that you can write to."
            ) from error

    def path(self, name: str) -> Path:
        """The local directory of an artifact, complete or not."""
        return self.folder / safe_relative(name)

    def settle(self, name: str, content: bytes) -> bytes:
        """Write a small file unless there is one of that name, and return what stands there: of several hosts, the first decides.

        Raises StoreError when a remote root does not answer, or when the file is empty: its writer was killed.
        """
        self._require_conditional()
        store = self._blobs()
        if store.create(name, content):
            return content
        for _ in range(20):
            if found := store.read_if_exists(name):
                return found
            time.sleep(0.1)  # another host is writing it
        raise StoreError(f"{store.address(name)} is empty: delete it, and run again.")

    def read(self, name: str) -> bytes | None:
        """A small file of the remote root, else of this machine, or None."""
        path = self.path(name)
        found = self.remote.read_if_exists(name) if self.remote is not None else None
        return path.read_bytes() if found is None and path.is_file() else found

    def edit(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace a small file by what `change` makes of it (None: there is none), and return that.

        Nothing that another host writes meanwhile is lost: then `change` is asked again, with what stands there by now. Raises
        StoreError when other hosts were quicker `EDITS` times.
        """
        self._require_conditional()
        path = self.path(name)
        with locked(self._lock(name)):
            for _ in range(EDITS):
                there = self.remote.read_tagged(name) if self.remote is not None else None
                known = there[0] if there else path.read_bytes() if path.is_file() else None
                changed = change(known)
                same = changed == known and (there or self.remote is None)
                if same or self._put(name, changed, there[1] if there else None):
                    return changed
                time.sleep(random.uniform(0, 0.2))
        raise StoreError(f"{self.url}/{name} is being written by other hosts all the time: run again.")

    def delete(self, name: str) -> None:
        """Delete a small file, in the remote root first: what a cut leaves is the file of this machine."""
        if self.remote is not None:
            self.remote.delete(name)
        self.path(name).unlink(missing_ok=True)

    def upload_file(self, path: Path) -> None:
        """Mirror one file that lies below the root's folder to a remote root; nothing to do for a local one."""
        if self.remote is not None:
            self.check_lease()
            self.remote.upload(path, path.relative_to(self.folder).as_posix())

    def delete_file(self, path: Path) -> None:
        """Delete a remote root's copy of one file below the root's folder; nothing to do for a local one."""
        if self.remote is not None:
            self.check_lease()
            self.remote.delete(path.relative_to(self.folder).as_posix())

    @contextlib.contextmanager
    def leased(self, name: str, what: str, folder: Path) -> Iterator[None]:
        """Publish under a lease while the block lasts: `name` below the root, which stands for `what` (words for a person).

        `folder`: where the caller holds a lock that stands for the same thing on this host. Raises BusyError when another host
        holds the lease. From then on whatever this object publishes first asks whether the lease still stands.
        """
        self._require_conditional()
        with leased(self._blobs(), name, what, folder) as self._lease:
            try:
                yield
            finally:
                self._lease = None

    def check_lease(self, ask: bool = True) -> None:
        """Raises SupersededError when another host has taken over the lease that this object publishes under.

        `ask`: ask the store, which raises StoreError when it does not answer; else by what the renewals have seen.
        """
        if self._lease is not None:
            self._lease.check() if ask else self._lease.require()

    def _put(self, name: str, content: bytes, tag: "UpdateVersion | None") -> bool:
        """Write a small file over the one with this tag, or as the first; False: another host was quicker."""
        won = True
        try:
            if self.remote is not None:
                self.check_lease()
                won = self.remote.replace(name, content, tag) if tag else self.remote.create(name, content)
        finally:
            if won:  # here even if the store does not answer
                write_atomic(self.path(name), content)
        return won

    def _require_conditional(self) -> None:
        if self.remote is not None:
            self.remote.require_conditional()

    def _blobs(self) -> Blobs:
        return self.remote or open_blobs(self.folder.as_uri())

    def _lock(self, name: str) -> Path:
        return self.folder / ".locks" / f"{name.replace('/', '.')}.lock"
