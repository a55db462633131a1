"""Text shards in nanochat's format: one column `text`, zstd level 3, no dictionary, no statistics.

A file has a multiple of 8 row groups, which up to 8 ranks read side by side, each of at most 1,024 rows. Their sizes differ by
at most one row: 14,000 documents are 16 row groups of 875.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tasks.corpus.parquet.views import Views

RANKS = 8
ROWS = 1024


def shard_name(number: int) -> str:
    """File name of a shard: the trainer reads shards in the order of their names."""
    return f"shard_{number:05d}.parquet"


def row_groups(documents: int) -> list[int]:
    """Row group boundaries of a shard, from 0 to `documents`."""
    count = RANKS * -(-documents // (RANKS * ROWS))
    return [documents * i // count for i in range(count + 1)]


def shard_bounds(documents: int, documents_per_shard: int) -> list[int]:
    """Shard boundaries of an arm. A remainder of fewer than 8 documents, too few for 8 row groups, joins the shard before."""
    bounds = [*range(0, documents, documents_per_shard), documents]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < RANKS:
        del bounds[-2]
    return bounds


def ordered_groups(texts: Views, order: np.ndarray) -> Iterator[Views]:
    """The texts in `order`, cut into the row groups of one shard."""
    for start, end in pairwise(row_groups(len(order))):
        yield texts[order[start:end]]
