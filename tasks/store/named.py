"""Several stores read as one: a blob of the store NAME is named NAME/..., one of the store without a name as it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock

from tasks.store.access import open_blobs
from tasks.store.blobs import Blob, Blobs, Counters


class NamedBlobs(Blobs):
    """Several stores by name, read only. They count together."""

    def __init__(self, stores: Mapping[str, Blobs]):
        self.url = ", ".join(store.url for store in stores.values())
        self.counters, self._lock = Counters(), Lock()
        self._stores = dict(stores)
        for store in self._stores.values():
            store.count_with(self)

    def address(self, name: str) -> str:
        store, blob = self._find(name)
        return store.address(blob)

    def read_range(self, blob: Blob, start: int, end: int) -> memoryview:
        store, name = self._find(blob.name)
        return store.read_range(replace(blob, name=name), start, end)

    def read_ranges(self, blob: Blob, ranges: Sequence[tuple[int, int]]) -> Sequence[memoryview]:
        store, name = self._find(blob.name)
        return store.read_ranges(replace(blob, name=name), ranges)

    def _find(self, name: str) -> tuple[Blobs, str]:
        """The store of a blob, and the blob's name there."""
        first, _, rest = name.partition("/")
        return (self._stores[first], rest) if first in self._stores else (self._stores[""], name)


def open_named(urls: Mapping[str, str]) -> Blobs:
    """The stores behind {name: URL} as one. Raises as `open_blobs` does."""
    if list(urls) == [""]:
        return open_blobs(urls[""])
    return NamedBlobs({name: open_blobs(url) for name, url in urls.items()})


def unnamed(name: str, blob: Blob) -> Blob:
    """A blob of `NamedBlobs` as the store `name` itself names it."""
    return replace(blob, name=blob.name.removeprefix(f"{name}/")) if name else blob


def named(name: str, blob: Blob) -> Blob:
    """A blob of the store `name` as `NamedBlobs` names it."""
    return replace(blob, name=f"{name}/{blob.name}") if name else blob
