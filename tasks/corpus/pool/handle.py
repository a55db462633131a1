"""A pool with its sources listed: what all that is made of it is named after and read from."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.corpus.pool.sources import list_blobs, place_of, places
from tasks.errors import InputError
from tasks.records.code import READ_VERSIONS
from tasks.records.layout import ArmFolder, PoolFolder, arm_id, pool_id
from tasks.spec import Arm, Pool
from tasks.store import bulk
from tasks.store.artifact import Manifest
from tasks.store.blobs import Blob, Blobs
from tasks.store.locks import locked, shared
from tasks.store.named import named, open_named, unnamed
from tasks.store.root import Root
from tasks.store.urls import parse_url


@dataclass(frozen=True)
class PoolHandle:
    """A pool with its sources listed: its name, its blobs, and the URLs they are read from, as `open_named` takes them."""

    pool: Pool
    pool_id: str
    blobs: tuple[Blob, ...]
    urls: Mapping[str, str]
    readable: tuple[Blob, ...]
    """The same blobs as they lie under `urls`: with other ETags once they are copied to this machine."""
    columnar: Manifest | None = None
    """Of the JSON lines among them, once they were made columnar."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why some of those are left out, by the name of the blob."""

    def arm(self, arm: Arm) -> ArmFolder:
        """Where an arm of the pool lies."""
        return ArmFolder(arm_id(arm, self.pool, self.pool_id))

    def source(self) -> Blobs:
        """The stores the blobs are read from."""
        return open_named(self.urls)

    def at_hand(self, root: Root) -> "PoolHandle":
        """With `download=bulk`, what lies elsewhere is copied below the root first."""
        if self.pool.download == "ranged" or self.urls != places(self.pool):
            return self
        urls, readable = dict(self.urls), list(self.readable)
        for place, url in self.urls.items():
            if parse_url(url).path is not None:
                continue
            folder = self._copy(root) / place
            numbers = [number for number, blob in enumerate(self.blobs) if place_of(self.pool, blob) == place]
            with locked(root.path(f".locks/{self.pool_id}.raw.lock")):
                copies = bulk.copy_blobs(url, [unnamed(place, self.blobs[number]) for number in numbers], folder)
            urls[place] = folder.as_uri()
            for number, copy in zip(numbers, copies, strict=True):
                readable[number] = named(place, copy)
        return replace(self, urls=urls, readable=tuple(readable))

    @contextlib.contextmanager
    def borrowed(self, root: Root) -> Iterator[None]:
        """Keep the copy of `download=bulk` while the block lasts; who is done with it last removes it, unless the block fails."""
        if self.pool.download == "ranged":
            yield
            return
        with shared(root.path(f".locks/{self.pool_id}.copy.lock")) as alone:
            yield
            if alone():
                shutil.rmtree(self._copy(root), ignore_errors=True)

    def _copy(self, root: Root) -> Path:
        return root.path(PoolFolder(self.pool_id).intermediate("raw"))


def open_pool(root: Root, pool: Pool | PoolHandle) -> PoolHandle:
    """List the pool's sources, without what lies under the root. Raises InputError when one cannot be listed or has no data files."""
    if isinstance(pool, PoolHandle):
        return pool
    blobs = tuple(list_blobs(pool, root.url))
    return PoolHandle(pool, pool_id(pool, blobs), blobs, places(pool), blobs)


def open_known(root: Root, id: str) -> PoolHandle:
    """The pool that finished runs name, as its index records it: one of an earlier version keeps its name, as far as this code reads it.

    Raises InputError when there is no such pool, its sources hold other files by now, or it is of a version that this code does not read.
    """
    handle = open_pool(root, Pool.model_validate(root.manifest(PoolFolder(id).index).spec))
    if id not in (handle.pool_id, *(pool_id(handle.pool, handle.blobs, version) for version in READ_VERSIONS)):
        raise InputError(
            f"The pool {id} cannot be read further: {handle.pool.address} holds other files than it was made from, or an earlier version made it. "
            "Judge without these strata, or prepare and train anew."
        )
    return replace(handle, pool_id=id)
