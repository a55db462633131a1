"""Parquet by ranges: footers, the byte ranges of single columns, and decoding from ranges that were fetched.

Only the wanted column chunks of a file are ever in memory; embeddings, which are most of its bytes, are not read.
Format: https://parquet.apache.org/docs/file-format/ (a file ends with the footer, its length as uint32, and `PAR1`).
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cramjam
import pyarrow as pa
import pyarrow.parquet as pq

TAIL = 128 << 10
"""Bytes of the first read from a file's end: the footer of a file with some hundred column chunks fits."""

SMALL_FILE = 1 << 20
"""Files of up to this many bytes are read by a single request."""

GAP = 128 << 10
"""Ranges closer than this many bytes are fetched as one: at 100 MB/s that costs less than a request's latency."""

SLACK = 100
"""Readers of the format may look this far behind a column chunk (dictionary header of old writers, PARQUET-816)."""

NUMBERS = ("INT32", "INT64", "FLOAT", "DOUBLE")


class BadFile(Exception):
    """A file that cannot be used: `name` of the blob, `reason` as half a sentence."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


@dataclass(frozen=True)
class Range:
    """Bytes [start, end) of a blob."""

    start: int
    end: int


Parts = list[tuple[int, memoryview]]
"""Fetched ranges of a blob: where each starts, and its bytes."""


def fetched(name: str, parts: Parts, start: int, end: int) -> memoryview:
    """Bytes [start, end) of a blob. Raises OSError: it would mean that a reader wants bytes nobody planned to fetch."""
    for first, data in parts:
        if first <= start and end <= first + len(data):
            return data[start - first : end - first]
    raise OSError(f"{name}: bytes {start}-{end} were not fetched")


class RangeFile(io.RawIOBase):
    """A read-only file of `size` bytes of which only some ranges are there. Reading elsewhere is an OSError."""

    def __init__(self, name: str, size: int, parts: Parts):
        super().__init__()
        self._name, self._size, self._position, self._parts = name, size, 0, parts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read(self, size: int = -1) -> memoryview:
        start = self._position
        end = self._size if size < 0 else min(start + size, self._size)
        data = fetched(self._name, self._parts, start, end)
        self._position = end
        return data


def read_footer(
    name: str, size: int, read: Callable[[Range], memoryview]
) -> tuple[pq.FileMetaData, bytes, tuple[int, memoryview]]:
    """The metadata of a file, the footer's own bytes, and all of the file's end that was read for it (offset, bytes).

    A small file is read whole, so that its columns are there at once. Raises BadFile.
    """
    if size < 12:
        raise BadFile(name, f"is not a Parquet file ({size} bytes)")
    start = 0 if size <= SMALL_FILE else size - TAIL
    tail = read(Range(start, size))
    if bytes(tail[-4:]) != b"PAR1":
        raise BadFile(name, "is not a Parquet file (it does not end with PAR1)")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4:
        raise BadFile(name, f"is damaged (its footer claims {length:,} bytes of a file of {size:,})")
    if length > len(tail):
        tail = memoryview(bytes(read(Range(size - length, start))) + bytes(tail))
        start = size - length
    footer = bytes(tail[-length:])
    return parse_footer(name, footer), footer, (start, tail)


def pack_footer(tail: bytes) -> bytes:
    """The last bytes of a file for those who hold them of thousands of files: a third of them."""
    return bytes(cramjam.zstd.compress(tail, 1))


@lru_cache(maxsize=16)  # the pieces of a file follow one another
def parse_packed(name: str, packed: bytes) -> pq.FileMetaData:
    """The metadata of a file from what `pack_footer` made. Raises BadFile."""
    return parse_footer(name, bytes(cramjam.zstd.decompress(packed)))


def parse_footer(name: str, tail: bytes) -> pq.FileMetaData:
    """The metadata of a file from its last bytes, the whole footer among them. Raises BadFile."""
    try:
        return pq.read_metadata(pa.BufferReader(pa.py_buffer(tail)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFile(name, f"is damaged (footer: {first_line(error)})") from error


def column_index(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a flat column among the leaves of the file. Raises BadFile when it is missing or nested."""
    schema = footer.schema
    for index in range(len(schema)):
        leaf = schema.column(index)
        flat = leaf.max_repetition_level == 0 and leaf.max_definition_level <= 1
        if leaf.path == column and flat:
            return index
        if leaf.path == column or leaf.path.split(".", 1)[0] == column:
            raise BadFile(name, f"has a nested column {column!r}: a flat one is needed")
    raise BadFile(name, f"has no column {column!r} (it has: {', '.join(top_level(footer))})")


def top_level(footer: pq.FileMetaData) -> list[str]:
    """Names of the file's columns, nested ones once."""
    return list(dict.fromkeys(footer.schema.column(i).path.split(".", 1)[0] for i in range(len(footer.schema))))


def number_column(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a column of numbers. Raises BadFile when it is missing, nested, or of another type."""
    index = column_index(name, footer, column)
    leaf = footer.schema.column(index)
    if leaf.physical_type not in NUMBERS or leaf.logical_type.type not in ("NONE", "INT"):
        raise BadFile(name, f"has {column!r} as {leaf.physical_type} {leaf.logical_type.type}: a number is needed")
    return index


def text_column(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a column of text. Raises BadFile when it is missing, nested, or of another type."""
    index = column_index(name, footer, column)
    leaf = footer.schema.column(index)
    if leaf.physical_type != "BYTE_ARRAY" or leaf.logical_type.type not in ("NONE", "STRING"):
        raise BadFile(name, f"has {column!r} as {leaf.physical_type} {leaf.logical_type.type}: text is needed")
    return index


def chunk_range(name: str, size: int, footer: pq.FileMetaData, row_group: int, column: int) -> Range:
    """Where a column chunk lies. Raises BadFile when the footer points outside of the file."""
    chunk = footer.row_group(row_group).column(column)
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    end = start + chunk.total_compressed_size
    if start < 4 or end < start or end > size - 8:
        raise BadFile(name, f"is damaged (column chunk at bytes {start:,}-{end:,} of a file of {size:,})")
    return Range(start, min(end + SLACK, size))


def coalesce(ranges: Iterable[Range], gap: int = GAP) -> list[Range]:
    """Sorted ranges with those that overlap or lie closer than `gap` bytes joined."""
    joined: list[Range] = []
    for part in sorted(ranges, key=lambda r: (r.start, r.end)):
        if joined and part.start - joined[-1].end <= gap:
            joined[-1] = Range(joined[-1].start, max(joined[-1].end, part.end))
        else:
            joined.append(part)
    return joined


def decode(
    name: str,
    size: int,
    footer: pq.FileMetaData,
    parts: Parts,
    row_groups: Sequence[int],
    columns: Sequence[str],
) -> pa.Table:
    """The columns of some row groups, one after another, from fetched ranges (offset, bytes). Raises BadFile."""
    file = RangeFile(name, size, parts)
    try:
        # the cast to a Python file is explicit: pyarrow would take a RawIOBase for one that it may buffer
        # and the reader, given the footer, does not ask for the end of the file again
        reader = pq.ParquetFile(pa.PythonFile(file, mode="r"), metadata=footer, pre_buffer=False)
        table = reader.read_row_groups(list(row_groups), columns=list(columns), use_threads=False)
        expected = sum(footer.row_group(g).num_rows for g in row_groups)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFile(
            name, f"is damaged (row groups {min(row_groups)}-{max(row_groups)}: {first_line(error)})"
        ) from error
    if table.num_rows != expected:
        raise BadFile(name, f"is damaged ({table.num_rows:,} rows where its footer says {expected:,})")
    return table


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut to 160 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
