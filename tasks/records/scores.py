"""`scores.parquet`: nats of each document that a model was scored on, with what a comparison needs to know of it.

One row per document, in the order of the evaluation. Bits per byte = nats / (ln 2 x UTF-8 bytes) is comparable between
tokenizers. `strata.parquet` says how documents of the holdout are rated: a holdout has one for each score it is divided by.
"""

import math
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DamagedError
from tasks.records.layout import SCORES, STRATA
from tasks.store.artifact import Work

FORMAT = 1
FORMAT_KEY = b"fabrating.scores"
"""Key of the format in the file's metadata. A file without it is of format 1."""
SCHEMA = pa.schema(
    {
        "document": pa.int64(),  # its number in the holdout, or in the texts
        "cluster": pa.int32(),  # documents that lie side by side in the raw data share one
        "score": pa.float64(),  # the rating, NaN without one
        "decile": pa.int8(),  # of the score, 0 the lowest, -1 without a score
        "bytes": pa.int64(),  # of the text in UTF-8
        "tokens": pa.int64(),
        "nats": pa.float64(),  # summed over the document's tokens
        "source": pa.string(),
    },
    metadata={FORMAT_KEY: str(FORMAT)},
)
DECILES = 10


def deciles(scores: np.ndarray) -> np.ndarray:
    """The decile of each score, 0 the lowest, int8 (n,); -1 for NaN.

    Equal scores share the decile of the middle one: were they divided, it would be by their place in the pool. So deciles are unequal
    where many scores are equal, and some may be empty.
    """
    decile, known = np.full(len(scores), -1, np.int8), np.isfinite(scores)
    _, group, counts = np.unique(scores[known], return_inverse=True, return_counts=True)
    middle = 2 * (np.cumsum(counts) - counts) + counts - 1  # twice the rank
    decile[known] = (middle * DECILES // max(1, 2 * int(known.sum())))[group]
    return decile


def write_strata(work: Work, scores: np.ndarray) -> None:
    """Add `strata.parquet` to an artifact in the making: the scores (documents,) of a holdout in its order, and their deciles."""
    table = pa.table({"score": pa.array(scores, pa.float64()), "decile": deciles(scores)})
    pq.write_table(table, work.temporary(STRATA))
    work.finish(STRATA, rows=len(scores))


def strata_scores(strata: Path) -> np.ndarray:
    """The scores (documents,) in a `strata.parquet`, NaN without a rating."""
    return np.asarray(pq.read_table(strata, columns=["score"])["score"].to_numpy(), dtype=float)


def with_strata(documents: pa.Table, strata: Path | None) -> pa.Table:
    """The documents of an evaluation with score and decile, by a `strata.parquet`, or unrated without one.

    Raises DamagedError when that is of another number of documents.
    """
    if strata is None:
        nothing = np.full(len(documents), np.nan)
        found = pa.table({"score": nothing, "decile": deciles(nothing)})
    elif len(found := pq.read_table(strata)) != len(documents):
        raise DamagedError(
            f"{strata} has {len(found):,} documents, the holdout {len(documents):,}: delete {strata.parent}."
        )
    return documents.append_column("score", found["score"]).append_column("decile", found["decile"])


class ScoreSummary(TypedDict):
    """Bits per byte over all documents, rated or not, and by score decile, lowest first (None for one without documents)."""

    bpb: float
    bpb_by_decile: list[float | None]


def scores_table(nats: np.ndarray, documents: pa.Table) -> pa.Table:
    """The scores of `documents` (an evaluation's DOCUMENTS), given the `nats` (documents,) of each."""
    columns = [pa.array(nats, pa.float64()) if name == "nats" else documents[name] for name in SCHEMA.names]
    return pa.table(columns, names=SCHEMA.names).cast(SCHEMA)


def write_scores(work: Work, scores: pa.Table) -> None:
    """Add `scores.parquet` to an artifact in the making."""
    pq.write_table(scores, work.temporary(SCORES), compression="zstd")
    work.finish(SCORES, rows=scores.num_rows)


def read_scores(path: Path) -> pa.Table:
    """The scores in a file. Raises DamagedError when a newer version of FabRating wrote them."""
    table = pq.read_table(path)
    found = (table.schema.metadata or {}).get(FORMAT_KEY, str(FORMAT).encode()).decode()
    if found != str(FORMAT):
        raise DamagedError(
            f"{path} has format {found}, this version of FabRating reads {FORMAT}: use the version that wrote it, or delete "
            f"{path.parent} and score again."
        )
    return table


def bits_per_byte(nats: np.ndarray, size: np.ndarray) -> float:
    """Of documents with `nats` and UTF-8 bytes `size`, each weighted by its bytes; NaN without any bytes."""
    return float(nats.sum() / (math.log(2) * size.sum())) if size.sum() else math.nan


def summarize(scores: pa.Table) -> ScoreSummary:
    """Bits per byte over all documents and by decile."""
    nats, size, decile = (scores[name].to_numpy() for name in ("nats", "bytes", "decile"))
    by_decile = [bits_per_byte(nats[decile == d], size[decile == d]) for d in range(DECILES)]
    return ScoreSummary(
        bpb=bits_per_byte(nats, size),
        bpb_by_decile=[None if math.isnan(value) else value for value in by_decile],
    )
