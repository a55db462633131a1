"""What the footer of a Parquet file says: its schema, and where each column chunk lies.

Format: https://parquet.apache.org/docs/file-format/ (a file ends with the footer, its length as uint32, and `PAR1`).
"""

from collections.abc import Callable
from functools import lru_cache

import cramjam
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.ranges import Range

TAIL = 128 << 10
"""Bytes read first, from the end of a file: enough for a footer of some hundred column chunks."""

SMALL_FILE = 1 << 20
"""Files of up to this many bytes are read in one request."""

SLACK = 100
"""Readers of the format may look this many bytes past a column chunk (dictionary header of old writers, PARQUET-816)."""

NUMBERS = ("INT32", "INT64", "FLOAT", "DOUBLE")


class BadFile(Exception):
    """A file that cannot be used: the `name` of the blob and a `reason` that completes the sentence."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def read_footer(
    name: str, size: int, read: Callable[[Range], memoryview]
) -> tuple[pq.FileMetaData, bytes, tuple[int, memoryview]]:
    """The metadata of a file, the bytes of its footer, and the end of the file that was read for it (offset, bytes).

    A small file is read whole, columns included. Raises BadFile.
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
    """The footer of a file compressed to about a third, for callers that hold thousands."""
    return bytes(cramjam.zstd.compress(tail, 1))


@lru_cache(maxsize=16)  # pieces of one file are read in succession
def parse_packed(name: str, packed: bytes) -> pq.FileMetaData:
    """The metadata of a file from the result of `pack_footer`. Raises BadFile."""
    return parse_footer(name, bytes(cramjam.zstd.decompress(packed)))


def parse_footer(name: str, tail: bytes) -> pq.FileMetaData:
    """The metadata of a file from its last bytes, which contain the whole footer. Raises BadFile."""
    try:
        return pq.read_metadata(pa.BufferReader(pa.py_buffer(tail)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFile(name, f"is damaged (footer: {first_line(error)})") from error


def find_column(name: str, footer: pq.FileMetaData, column: str) -> int | None:
    """Position among the leaves of the schema of the column called exactly that; None if there is none.

    A name with dots is that of a top-level column, or else the path of a field in a struct. Raises BadFile for a column that
    is a list or a struct as a whole, and for two columns of one name.
    """
    leaves = [footer.schema.column(i) for i in range(len(footer.schema))]
    found = [i for i, leaf in enumerate(leaves) if leaf.name == column and leaf.path == column]
    found = found or [i for i, leaf in enumerate(leaves) if leaf.path == column]
    if len(found) > 1:
        raise BadFile(name, f"has {len(found)} columns {column!r}: rename or drop all but one")
    if any(leaves[i].max_repetition_level for i in found) or (not found and column in map(top_name, leaves)):
        raise BadFile(name, f"has a nested column {column!r}: a column of single values is needed")
    return found[0] if found else None


def column_index(name: str, footer: pq.FileMetaData, column: str) -> int:
    """The same for a column that must be there. Raises BadFile if it is missing."""
    index = find_column(name, footer, column)
    if index is None:
        raise BadFile(name, f"has no column {column!r} (it has: {', '.join(top_level(footer))})")
    return index


def top_name(leaf: pq.ColumnSchema) -> str:
    """Name of the top-level column that a leaf of the schema is, or is part of."""
    return leaf.path if leaf.name == leaf.path else leaf.path.split(".", 1)[0]


def top_level(footer: pq.FileMetaData) -> list[str]:
    """Names of the top-level columns."""
    return list(dict.fromkeys(top_name(footer.schema.column(i)) for i in range(len(footer.schema))))


def number_column(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a column of numbers. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    index = column_index(name, footer, column)
    leaf = footer.schema.column(index)
    if leaf.physical_type not in NUMBERS or leaf.logical_type.type not in ("NONE", "INT"):
        raise BadFile(name, f"has {column!r} as {leaf.physical_type} {leaf.logical_type.type}: a number is needed")
    return index


def text_column(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a column of text. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    index = column_index(name, footer, column)
    leaf = footer.schema.column(index)
    if leaf.physical_type != "BYTE_ARRAY" or leaf.logical_type.type not in ("NONE", "STRING"):
        raise BadFile(name, f"has {column!r} as {leaf.physical_type} {leaf.logical_type.type}: text is needed")
    return index


def value_column(name: str, footer: pq.FileMetaData, column: str) -> int:
    """Position of a column of numbers, truth values or text. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    index = column_index(name, footer, column)
    leaf = footer.schema.column(index)
    kinds = {"BYTE_ARRAY": ("NONE", "STRING"), "BOOLEAN": ("NONE",)} | dict.fromkeys(NUMBERS, ("NONE", "INT"))
    if leaf.logical_type.type not in kinds.get(leaf.physical_type, ()):
        raise BadFile(
            name, f"has {column!r} as {leaf.physical_type} {leaf.logical_type.type}: a number or text is needed"
        )
    return index


def single_values(footer: pq.FileMetaData) -> list[str]:
    """Names of the columns of single values, fields of structs by their path."""
    leaves = [footer.schema.column(i) for i in range(len(footer.schema))]
    return list(dict.fromkeys(leaf.path for leaf in leaves if not leaf.max_repetition_level))


def chunk_range(name: str, size: int, footer: pq.FileMetaData, row_group: int, column: int) -> Range:
    """Where a column chunk lies. Raises BadFile if the footer points outside the file."""
    chunk = footer.row_group(row_group).column(column)
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    end = start + chunk.total_compressed_size
    if start < 4 or end < start or end > size - 8:
        raise BadFile(name, f"is damaged (column chunk at bytes {start:,}-{end:,} of a file of {size:,})")
    return Range(start, min(end + SLACK, size))


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut to 160 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
