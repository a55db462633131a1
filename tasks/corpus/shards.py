"""Text shards in nanochat's format: one column `text`, zstd level 3, no dictionary, no statistics.

A file has a multiple of 8 row groups (up to 8 ranks read it side by side), each of at most 1,024 rows; their sizes
differ by at most one row. 14,000 documents are 16 row groups of 875.
"""

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RANKS = 8
ROWS = 1024
SCHEMA = pa.schema([("text", pa.large_string())])
"""Offsets of 64 bits in memory; in the file it is the same as a string."""


def shard_name(number: int) -> str:
    """File name of a shard: the trainer reads shards in the order of their names."""
    return f"shard_{number:05d}.parquet"


def row_groups(documents: int) -> list[int]:
    """Row group boundaries of a shard, from 0 to `documents`."""
    count = RANKS * -(-documents // (RANKS * ROWS))
    return [documents * i // count for i in range(count + 1)]


def shard_bounds(documents: int, documents_per_shard: int) -> list[int]:
    """Shard boundaries of an arm. A rest of fewer than 8 documents, too few for 8 row groups, joins the shard before."""
    bounds = [*range(0, documents, documents_per_shard), documents]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < RANKS:
        del bounds[-2]
    return bounds


class HashingFile:
    """A file that is written once, front to back, and hashed on the way."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        self._size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def sha256(self) -> str:
        return self._hash.hexdigest()


def write_shard(path: Path, groups: Iterable[pa.Array]) -> str:
    """Write one row group for each array of large strings; returns the file's SHA-256."""
    file = HashingFile(path)
    with pq.ParquetWriter(
        file,
        SCHEMA,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        for texts in groups:
            writer.write_batch(pa.record_batch([texts], schema=SCHEMA), row_group_size=max(1, len(texts)))
    file.close()
    return file.sha256()


def ordered_groups(texts: pa.LargeStringArray, order: np.ndarray) -> Iterable[pa.Array]:
    """The texts taken in `order`, cut to the row groups of one shard; only one of them is copied at a time."""
    bounds = row_groups(len(order))
    for start, end in pairwise(bounds):
        yield texts.take(pa.array(order[start:end]))
