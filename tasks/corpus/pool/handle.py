"""A pool with its sources listed: what all that is made of it is named after and read from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.corpus.pool.sources import list_blobs, place_of, places
from tasks.records.layout import ArmFolder, PoolFolder, arm_id, pool_id
from tasks.spec import Arm, Pool
from tasks.store import bulk
from tasks.store.artifact import Manifest
from tasks.store.blobs import Blob, Blobs
from tasks.store.locks import locked
from tasks.store.named import named, open_named, unnamed
from tasks.store.root import Root


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
        """With `download=bulk`, copied below the root first if azcopy can do it; if not, the log says why."""
        if self.pool.download == "ranged" or self.urls != places(self.pool):
            return self
        urls, readable = dict(self.urls), list(self.readable)
        for place, url in self.urls.items():
            if (reason := bulk.why_not(url)) is not None:
                logging.getLogger("fabrating").warning("%s is read by ranges: %s.", url, reason)
                continue
            folder = root.path(PoolFolder(self.pool_id).intermediate("raw")) / place
            numbers = [number for number, blob in enumerate(self.blobs) if place_of(self.pool, blob) == place]
            with locked(root.path(f".locks/{self.pool_id}.raw.lock")):
                copies = bulk.copy_blobs(url, [unnamed(place, self.blobs[number]) for number in numbers], folder)
            urls[place] = folder.as_uri()
            for number, copy in zip(numbers, copies, strict=True):
                readable[number] = named(place, copy)
        return replace(self, urls=urls, readable=tuple(readable))


def open_pool(root: Root, pool: Pool | PoolHandle) -> PoolHandle:
    """List the pool's sources. Raises InputError when one cannot be listed or has no Parquet files."""
    if isinstance(pool, PoolHandle):
        return pool
    blobs = tuple(list_blobs(pool))
    return PoolHandle(pool, pool_id(pool, blobs), blobs, places(pool), blobs)
