"""Scores of documents: which columns they come from, their composite, which of them a document lacks, and their deciles.

A value that is null, NaN or infinite is no rating. A document that lacks one of the columns with a weight above 0 has no
composite: NaN.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow.parquet as pq

from tasks.corpus.parquet.footer import column_index, find_column
from tasks.spec import Pool

LEVELS = np.arange(11) / 10


def wanted_scores(name: str, footer: pq.FileMetaData, pool: Pool) -> dict[str, float]:
    """The score columns to read of a file, with their weights. Raises BadFile if a rated file lacks one of a weight above 0.

    A prebuilt subset is not ranked: its scores serve the report and are read where they exist.
    """
    if pool.format == "unrated":
        return {}
    there = [column for column in pool.score if find_column(name, footer, column) is not None]
    if pool.format == "prebuilt":
        if all(column in there for column in pool.ratings):
            return {column: pool.score[column] for column in there}
        return {"score": 1.0} if find_column(name, footer, "score") is not None else {}
    for column in pool.ratings:
        column_index(name, footer, column)
    return {column: pool.score[column] for column in there}


def composite(values: Mapping[str, np.ndarray], weights: Mapping[str, float], rows: int) -> np.ndarray:
    """Weighted mean of the score columns `values` (rows,) each, float64 (rows,); NaN where one of them has no rating."""
    counted = {column: weight for column, weight in weights.items() if weight > 0}
    total = np.zeros(rows) if counted else np.full(rows, np.nan)
    for column, weight in counted.items():
        total += weight * np.where(np.isfinite(values[column]), values[column], np.nan)
    return total / (sum(counted.values()) or 1)


def rated_bits(values: Mapping[str, np.ndarray], pool: Pool, rows: int) -> np.ndarray:
    """Which of the pool's score columns have a rating, (rows,) of the narrowest unsigned integers with a bit for each column."""
    columns = sorted(pool.score)  # the pool's identity does not depend on their order
    bits = np.zeros(rows, np.min_scalar_type((1 << len(columns)) - 1))
    for number, column in enumerate(columns):
        if column in values:
            bits |= np.isfinite(values[column]).astype(bits.dtype) << bits.dtype.type(number)
    return bits


def has_ratings(rated: np.ndarray, pool: Pool, columns: Iterable[str]) -> np.ndarray:
    """Whether documents with these `rated_bits` have a rating in each of the `columns`, bool (n,)."""
    wanted = rated.dtype.type(sum(1 << number for number, column in enumerate(sorted(pool.score)) if column in columns))
    return rated & wanted == wanted


def quantiles(scores: np.ndarray) -> dict[str, float]:
    """Deciles of scores, by level; of no scores, nothing. NaN is no score."""
    rated = scores[~np.isnan(scores)]
    if not len(rated):
        return {}
    return {f"{level:g}": float(value) for level, value in zip(LEVELS, np.quantile(rated, LEVELS), strict=True)}
