"""Shards on the disk: one column of text as Parquet, hashed while it is written."""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.disk import write_all
from tasks.corpus.parquet.views import Views

SCHEMA = pa.schema([("text", pa.string_view())])
PAGE_BYTES = 2 << 20
"""Text of a page, at least one text: as far as the compressor looks back at level 3. Mostly all of a row group; that costs less time
than several pages and comes out 4 % smaller than pages of 512 KiB."""
TEXTS_BETWEEN = 2
"""Texts after which the writer looks whether a page is full: as many of the longest as a page can hold."""


class HashingFile(io.RawIOBase):
    """A file that is written once, front to back, and hashed on the way."""

    def __init__(self, path: Path):
        super().__init__()
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._hash.update(data)
        write_all(self._file, data)
        return len(data)

    def close(self) -> None:
        super().close()
        self._file.close()

    def sha256(self) -> str:
        """Of what was written."""
        return self._hash.hexdigest()


def write_texts(path: Path, groups: Iterable[Views]) -> str:
    """Write one row group for each of `groups`, none of them empty; returns the file's SHA-256."""
    settings = {"compression": "zstd", "compression_level": 3, "use_dictionary": False, "write_statistics": False}
    pages = {"data_page_size": PAGE_BYTES, "write_batch_size": TEXTS_BETWEEN}
    with (
        HashingFile(path) as file,
        pq.ParquetWriter(pa.PythonFile(file, "w"), SCHEMA, store_schema=False, **settings, **pages) as writer,
    ):
        for texts in groups:
            writer.write_batch(pa.record_batch([texts.array(pa.string_view())], schema=SCHEMA), len(texts))
    return file.sha256()
