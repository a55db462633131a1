"""Files of all writers at hand are read as pyarrow reads them."""

import random
from pathlib import Path

from tests.corpus.parquet.writers import compare


def test_files_of_all_writers_codecs_and_encodings_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    assert sum(compare(tmp_path, 24, seed).values()) == 24, seed
