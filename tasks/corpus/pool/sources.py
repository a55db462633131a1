"""What a pool is read from: one source, or several with names, and perhaps a place of its own for the holdout.

A blob of a source with a name is NAME/..., one of the holdout's place .holdout/... (no source has hidden files). Blobs are in the
order of places, the holdout's last, and by name within each, so the documents of a source have consecutive numbers.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from tasks.corpus.lines import ENDINGS, is_lines
from tasks.errors import InputError
from tasks.records.layout import KINDS
from tasks.spec import Pool
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob
from tasks.store.listing import data_files
from tasks.store.named import named
from tasks.store.urls import parse_source, parse_url

SUFFIXES = (".parquet", *ENDINGS)
HOLDOUT = ".holdout"


def places(pool: Pool) -> dict[str, str]:
    """{name: URL} of what the pool is read from."""
    return pool.urls | ({HOLDOUT: pool.holdout} if pool.holdout else {})


def list_blobs(pool: Pool, root: str) -> list[Blob]:
    """All blobs of the pool but artifacts, should the `root` lie in one of its sources. Raises as `list_place` does."""
    return [named(name, blob) for name, url in places(pool).items() for blob in list_place(url, root)]


def list_place(url: str, root: str | None = None) -> list[Blob]:
    """All data files below a URL, without artifacts of the `root`. Raises InputError for files of several kinds, and as `data_files` does."""
    source = open_blobs(url)
    below = parse_url(root).below(source.place) if root else None
    blobs = data_files(source, SUFFIXES, () if below is None else tuple(f"{below}{kind}/" for kind in KINDS))
    first = next((blob for blob in blobs if is_lines(blob.name) != is_lines(blobs[0].name)), blobs[0])
    if first is not blobs[0]:
        raise InputError(
            f"{url} holds both {blobs[0].name} and {first.name}, perhaps the same documents twice: name those of one kind, such as "
            f"{url.rstrip('/')}/**/*.parquet."
        )
    return blobs


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
    return f"{parse_source(urls[place]).base}/{name}"


def folder_of(pool: Pool, blob: Blob) -> str:
    """The folder of a blob below the URL of its place."""
    place = place_of(pool, blob)
    parent = PurePosixPath(blob.name.removeprefix(f"{place}/") if place else blob.name).parent.as_posix()
    return "" if parent == "." else parent
