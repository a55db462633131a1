"""A packed arm on disk: rows of tokens, and beside each what it holds."""

from pathlib import Path

import numpy as np

from tasks.records.layout import CONTENTS, ROWS

ROW_CONTENTS = np.dtype([("documents", "<u4"), ("bytes", "<u4"), ("score", "<f4")])
"""Documents that begin in the row; bytes of text that it trains on; mean score of its tokens' documents, NaN without a rating."""


def read_rows(folder: Path, sequence_length: int) -> np.ndarray:
    """The rows of a packed arm, mapped: uint16 (rows, sequence_length + 1)."""
    return np.memmap(folder / ROWS, "<u2", "r").reshape(-1, sequence_length + 1)


def read_contents(folder: Path) -> np.ndarray:
    """What each row holds: ROW_CONTENTS (rows,)."""
    return np.fromfile(folder / CONTENTS, ROW_CONTENTS)
