"""What a pool is read from: one source, or several with names, and perhaps a place of its own for the holdout.

A blob of a source with a name is NAME/..., one of the holdout's place .holdout/... (no source has hidden files). Blobs are in the
order of places, the holdout's last, and by name within each, so the documents of a source have consecutive numbers.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from tasks.spec import Pool
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob
from tasks.store.listing import data_files
from tasks.store.named import named
from tasks.store.urls import parse_url

SUFFIX = ".parquet"
HOLDOUT = ".holdout"


def places(pool: Pool) -> dict[str, str]:
    """{name: URL} of what the pool is read from."""
    return pool.urls | ({HOLDOUT: pool.holdout} if pool.holdout else {})


def list_blobs(pool: Pool) -> list[Blob]:
    """All blobs of the pool. Raises as `data_files` does."""
    return [named(name, blob) for name, url in places(pool).items() for blob in data_files(open_blobs(url), SUFFIX)]


def place_of(pool: Pool, blob: Blob) -> str:
    """The name of the place that a blob comes from."""
    first = blob.name.partition("/")[0]
    return first if first in places(pool) else ""


def place_numbers(pool: Pool, blobs: Sequence[Blob]) -> np.ndarray:
    """For each file the number of its place in `places`, int64 (files,)."""
    number = {name: i for i, name in enumerate(places(pool))}
    return np.array([number[place_of(pool, blob)] for blob in blobs], np.int64)


def is_held_out(blob: Blob) -> bool:
    """Whether a blob lies in the holdout's own place."""
    return blob.name.startswith(f"{HOLDOUT}/")


def address(pool: Pool, name: str) -> str:
    """The URL of a blob, given its name in the pool, for messages."""
    urls, (first, _, rest) = places(pool), name.partition("/")
    place, name = (first, rest) if first in urls else ("", name)
    return f"{parse_url(urls[place]).base}/{name}"


def folder_of(pool: Pool, blob: Blob) -> str:
    """The folder of a blob below the URL of its place."""
    place = place_of(pool, blob)
    parent = PurePosixPath(blob.name.removeprefix(f"{place}/") if place else blob.name).parent.as_posix()
    return "" if parent == "." else parent
