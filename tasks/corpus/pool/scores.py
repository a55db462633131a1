"""Scores of documents: which columns they come from, their composite, and their deciles."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.footer import column_index, top_level
from tasks.spec import Pool

LEVELS = np.arange(11) / 10


def wanted_scores(name: str, footer: pq.FileMetaData, pool: Pool) -> dict[str, float]:
    """The score columns to read of a file, with their weights. Raises BadFile if a rated file lacks one.

    A prebuilt subset is not ranked: its scores serve the report and are read where they exist.
    """
    if pool.format == "unrated":
        return {}
    weights = {column: weight for column, weight in pool.score.items() if weight > 0}
    if pool.format == "prebuilt":
        columns = top_level(footer)
        if all(column in columns for column in weights):
            return weights
        return {"score": 1.0} if "score" in columns else {}
    for column in weights:
        column_index(name, footer, column)
    return weights


def composite(table: pa.Table | None, weights: dict[str, float], rows: int) -> tuple[np.ndarray, int]:
    """Weighted mean of the score columns, float64 (rows,), and how many values were null or NaN (they count as 0)."""
    total, nulls = np.zeros(rows), 0
    for column, weight in weights.items():
        values = table.column(column).to_numpy().astype(np.float64)
        bad = ~np.isfinite(values)
        nulls += int(bad.sum())
        total += weight * np.where(bad, 0.0, values)
    return (total / sum(weights.values()) if weights else total), nulls


def quantiles(scores: np.ndarray) -> dict[str, float]:
    """Deciles of scores, by level."""
    return {f"{level:g}": float(value) for level, value in zip(LEVELS, np.quantile(scores, LEVELS), strict=True)}
