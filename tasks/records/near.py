"""`arms/<arm>/near/<version>-<what>/near.parquet`: which held-out documents have near copies in an arm, how many, and where.

One row per held-out document that has any. What is held out is the pool's holdout, texts from elsewhere, or
questions with their right answers; the artifact's facts say how many documents were looked for and how many of the arm's are copies.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records.layout import NEAR
from tasks.store.artifact import Work

HOLDOUT = "holdout"
"""The pool's, among what is held out; texts from elsewhere go by their names."""


def of_questions(name: str) -> str:
    """A set of questions among what is held out, by its name."""
    return f"questions-{name}"


SCHEMA = pa.schema(
    {
        "document": pa.int64(),  # its number, as in scores
        "copies": pa.int64(),  # documents of the arm
        "share": pa.float32(),  # the largest part of its passages that one of them has
        "rank": pa.int64(),  # of that one in the arm, null where it was removed
    }
)


class NearFacts(TypedDict):
    """What the artifact counts."""

    documents: int
    """That are held out."""
    unsearchable: int
    """Of these, so short that no copy is found."""
    leaked: int
    """Of these, with a near copy in the arm."""
    copies: int
    """Documents of the arm that are near copies."""
    removed: bool
    """Whether the arm leaves them out."""


@dataclass(frozen=True)
class NearCopies:
    """The columns of the file, (n,) each, by rising document; `rank` is -1 for a copy that was removed."""

    document: np.ndarray
    copies: np.ndarray
    share: np.ndarray
    rank: np.ndarray
    found: int
    """Documents of the arm that are copies, each counted once."""

    @classmethod
    def of(cls, rank: np.ndarray, document: np.ndarray, share: np.ndarray, found: int | None = None) -> "NearCopies":
        """From pairs (n,) of a document of the arm and a held-out one, none of them twice. `found`: if it is not the number of ranks."""
        order = np.lexsort((rank, -share, document))
        rank, document, share = rank[order], document[order], share[order]
        held, first, copies = np.unique(document, return_index=True, return_counts=True)
        return cls(held, copies, share[first], rank[first], len(np.unique(rank)) if found is None else found)

    def write(self, work: Work, documents: int, unsearchable: int, *, removed: bool) -> None:
        """Fill an artifact in the making. `documents`: how many were looked for."""
        columns = [self.document, self.copies, self.share.astype(np.float32), pa.array(self.rank, mask=self.rank < 0)]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True))).cast(SCHEMA)
        pq.write_table(table, work.temporary(NEAR), compression="zstd")
        work.finish(NEAR, rows=table.num_rows)
        facts = NearFacts(
            documents=documents,
            unsearchable=unsearchable,
            leaked=table.num_rows,
            copies=self.found,
            removed=removed,
        )
        work.facts.update(facts)


def leaked(folder: Path) -> np.ndarray:
    """Numbers of the held-out documents that have a near copy in the arm, rising, int64."""
    documents: np.ndarray = pq.read_table(folder / NEAR, columns=["document"])["document"].to_numpy()
    return documents
