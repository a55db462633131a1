"""`division.parquet`: the value of one column of the pool for each document of its holdout, in the holdout's order.

It is made beside the holdout when a verdict first asks for the column, so older pools stay as they are. Values are numbers (float64) or
strings; null means that the document has none. The verdict decides which parts they make.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records.layout import DIVISION
from tasks.store.artifact import Work

VALUE = "value"


def write_division(work: Work, values: pa.Array) -> None:
    """Add `division.parquet` to an artifact in the making: float64 or strings (documents,)."""
    pq.write_table(pa.table({VALUE: values}), work.temporary(DIVISION), compression="zstd")
    work.finish(DIVISION, rows=len(values))


def read_division(folder: Path) -> pa.Array:
    """The values in an artifact's folder."""
    return pq.read_table(folder / DIVISION)[VALUE].combine_chunks()
