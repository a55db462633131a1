"""What the footer of a Parquet file says: its schema, and where each column chunk lies.

Format: https://parquet.apache.org/docs/file-format/ (a file ends with the footer, its length as uint32, and `PAR1`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import cramjam
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.ranges import Range
from tasks.corpus.parquet.thrift import I16, I32, I64, LIST, STRUCT, read_field, read_list, read_number, skip

TAIL = 128 << 10
"""Bytes read first, from the end of a file: enough for a footer of some hundred column chunks."""

SMALL_FILE = 1 << 20
"""Files of up to this many bytes are read in one request."""

SLACK = 100
"""Readers of the format may look this many bytes past a column chunk (dictionary header of old writers, PARQUET-816)."""

CODECS = dict(enumerate(("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")))

NUMBERS = ("INT32", "INT64", "FLOAT", "DOUBLE")
NUMBER_TYPES: dict[str, tuple[str, ...]] = dict.fromkeys(NUMBERS, ("NONE", "INT"))
TEXT_TYPES = {"BYTE_ARRAY": ("NONE", "STRING")}


class BadFile(Exception):
    """A file that cannot be used: the `name` of the blob and a `reason` that completes the sentence."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


class ColumnChunk(NamedTuple):
    """What a footer says of a column chunk: its codec, where its first page begins, and its bytes, compressed and not."""

    codec: str
    start: int
    compressed: int
    decompressed: int


@dataclass(frozen=True)
class Footer:
    """The metadata of the file `name` as pyarrow parsed it from `data`, which ends with the file."""

    name: str
    metadata: pq.FileMetaData
    data: bytes

    @property
    def leaves(self) -> list[pq.ColumnSchema]:
        """The columns of single values or of lists of them: what column chunks hold."""
        schema = self.metadata.schema
        return [schema.column(i) for i in range(len(schema))]

    @cached_property
    def rows(self) -> list[int]:
        """Rows of each row group."""
        return [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]

    def chunk(self, row_group: int, column: int) -> ColumnChunk:
        """What the footer says of a column chunk. Raises BadFile if that is encrypted or damaged."""
        try:
            at = self._described[row_group][column]
            if at is None:
                path = self.leaves[column].path
                raise BadFile(self.name, f"has an encrypted column {path!r}: it cannot be read without its key")
            said = _numbers(self.data, at, 11)  # of ColumnMetaData
            codec, start = said[4], min(said[9], said.get(11) or said[9])  # of its data pages and of its dictionary
            return ColumnChunk(CODECS.get(codec, f"codec {codec}"), start, compressed=said[7], decompressed=said[6])
        except (LookupError, ValueError) as error:
            raise self._damaged(error) from error

    @cached_property
    def encrypted(self) -> frozenset[int]:
        """Positions of the columns whose chunks are described in cipher, at least in one row group. Raises BadFile."""
        return frozenset(i for group in self._described for i, at in enumerate(group) if at is None)

    @cached_property
    def _described(self) -> list[list[int | None]]:
        """Where in `data` the description of each column chunk lies, None for one in cipher. Raises BadFile.

        Not from pyarrow, which ends the process when it is asked for a chunk that it cannot make sense of.
        """
        try:
            found = _descriptions(self.data)
        except (IndexError, ValueError) as error:
            raise self._damaged(error) from error
        if any(len(group) != self.metadata.num_columns for group in found) or len(found) != len(self.rows):
            raise self._damaged(ValueError("row groups that lack columns"))
        return found

    def _damaged(self, error: Exception) -> BadFile:
        return BadFile(self.name, f"is damaged (footer: {first_line(error)})")


def _descriptions(data: bytes) -> list[list[int | None]]:
    """For each column chunk of each row group where its ColumnMetaData begins; None without one, or with a key beside it.

    Row groups are field 4 of FileMetaData, column chunks field 1 of a RowGroup; a ColumnChunk has its ColumnMetaData in field 3 and
    what belongs to a key in field 8. Raises IndexError or ValueError for bytes that are no footer.
    """
    groups: list[list[int | None]] = []

    def column_chunk(at: int) -> int:
        described, locked, number = None, False, 0
        while head := data[at]:
            number, at = read_field(data, at, number)
            if number == 3 and head & 0x0F == STRUCT:
                described = at
            locked |= number == 8
            at = skip(data, at, head & 0x0F)
        groups[-1].append(None if locked else described)
        return at + 1

    def row_group(at: int) -> int:
        groups.append([])
        return _structs_in(data, at, 1, column_chunk)

    _structs_in(data, 0, 4, row_group)
    return groups


def _structs_in(data: bytes, at: int, wanted: int, one: Callable[[int], int]) -> int:
    """Go over the struct at `at`, with `one` over each struct of the list that is its field `wanted`; returns where it ends."""
    number = 0
    while head := data[at]:
        number, at = read_field(data, at, number)
        if number != wanted or head & 0x0F != LIST:
            at = skip(data, at, head & 0x0F)
            continue
        count, kind, at = read_list(data, at)
        if count and kind != STRUCT:
            raise ValueError("a list of something else than structs")
        for _ in range(count):
            at = one(at)
    return at + 1


def _numbers(data: bytes, at: int, last: int) -> dict[int, int]:
    """The whole numbers of the struct at `at`, by field, up to field `last`."""
    found: dict[int, int] = {}
    number = 0
    while (head := data[at]) and number < last:
        number, at = read_field(data, at, number)
        if head & 0x0F in (I16, I32, I64):
            found[number], at = read_number(data, at)
        else:
            at = skip(data, at, head & 0x0F)
    return found


def read_footer(name: str, size: int, read: Callable[[Range], memoryview]) -> tuple[Footer, tuple[int, memoryview]]:
    """The footer of a file, and the end of the file that was read for it (offset, bytes).

    A small file is read whole, columns included. Raises BadFile.
    """
    if size < 12:
        raise BadFile(name, f"is not a Parquet file ({size} bytes)")
    start = 0 if size <= SMALL_FILE else size - TAIL
    tail = read(Range(start, size))
    if bytes(tail[-4:]) == b"PARE":
        raise BadFile(name, "is encrypted as a whole and cannot be read without its keys")
    if bytes(tail[-4:]) != b"PAR1":
        raise BadFile(name, "is not a Parquet file (it does not end with PAR1)")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4:
        raise BadFile(name, f"is damaged (its footer claims {length:,} bytes of a file of {size:,})")
    if length > len(tail):
        tail = memoryview(bytes(read(Range(size - length, start))) + bytes(tail))
        start = size - length
    return parse_footer(name, bytes(tail[-length:])), (start, tail)


def pack_footer(tail: bytes) -> bytes:
    """The footer of a file compressed to about a third, for callers that hold thousands."""
    return bytes(cramjam.zstd.compress(tail, 1))


@lru_cache(maxsize=16)  # pieces of one file are read in succession
def parse_packed(name: str, packed: bytes) -> Footer:
    """A footer from the result of `pack_footer`. Raises BadFile."""
    return parse_footer(name, bytes(cramjam.zstd.decompress(packed)))


def parse_footer(name: str, tail: bytes) -> Footer:
    """A footer from the last bytes of a file, which begin with it. Raises BadFile."""
    try:
        return Footer(name, pq.read_metadata(pa.BufferReader(pa.py_buffer(tail))), tail)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFile(name, f"is damaged (footer: {first_line(error)})") from error


def find_column(footer: Footer, column: str) -> int | None:
    """Position among the leaves of the schema of the column called exactly that; None if there is none.

    A name with dots is that of a top-level column, or else the path of a field in a struct. Raises BadFile for a column that
    is a list or a struct as a whole, and for two columns of one name.
    """
    name, leaves = footer.name, footer.leaves
    found = [i for i, leaf in enumerate(leaves) if leaf.name == column and leaf.path == column]
    found = found or [i for i, leaf in enumerate(leaves) if leaf.path == column]
    if len(found) > 1:
        raise BadFile(name, f"has {len(found)} columns {column!r}: rename or drop all but one")
    if any(leaves[i].max_repetition_level for i in found) or (not found and column in map(top_name, leaves)):
        raise BadFile(name, f"has a nested column {column!r}: a column of single values is needed")
    return found[0] if found else None


def column_index(footer: Footer, column: str) -> int:
    """The same for a column that must be there. Raises BadFile if it is missing."""
    index = find_column(footer, column)
    if index is None:
        raise BadFile(footer.name, f"has no column {column!r} (it has: {', '.join(top_level(footer))})")
    return index


def top_name(leaf: pq.ColumnSchema) -> str:
    """Name of the top-level column that a leaf of the schema is, or is part of."""
    return leaf.path if leaf.name == leaf.path else leaf.path.split(".", 1)[0]


def top_level(footer: Footer) -> list[str]:
    """Names of the top-level columns."""
    return list(dict.fromkeys(map(top_name, footer.leaves)))


def number_column(footer: Footer, column: str) -> int:
    """Position of a column of numbers. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    return _typed_column(footer, column, NUMBER_TYPES, "a number is needed")


def rating_column(footer: Footer, column: str) -> int:
    """Position of a column that a mean can be of: numbers or truth values. Raises BadFile as `number_column` does."""
    return _typed_column(footer, column, {"BOOLEAN": ("NONE",), **NUMBER_TYPES}, "a number is needed")


def text_column(footer: Footer, column: str) -> int:
    """Position of a column of text. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    return _typed_column(footer, column, TEXT_TYPES, "text is needed")


def value_column(footer: Footer, column: str) -> int:
    """Position of a column of numbers, truth values or text. Raises BadFile if it is missing, ambiguous, nested or of another type."""
    types = {**TEXT_TYPES, "BOOLEAN": ("NONE",), **NUMBER_TYPES}
    return _typed_column(footer, column, types, "a number or text is needed")


def _typed_column(footer: Footer, column: str, types: Mapping[str, tuple[str, ...]], needed: str) -> int:
    """Position of a column of one of these {physical: logical types}."""
    index = column_index(footer, column)
    physical, logical = footer.leaves[index].physical_type, footer.leaves[index].logical_type.type
    if logical not in types.get(physical, ()):
        raise BadFile(footer.name, f"has {column!r} as {physical} {logical}: {needed}")
    return index


def single_values(footer: Footer) -> list[str]:
    """Names of the columns of single values, fields of structs by their path."""
    return list(dict.fromkeys(leaf.path for leaf in footer.leaves if not leaf.max_repetition_level))


def value_types(footer: Footer) -> dict[str, str]:
    """{name: physical type} of the columns that can be read as numbers or text, fields of structs by their path; of dates, for one, not."""
    types = {**TEXT_TYPES, **NUMBER_TYPES}
    return {
        leaf.path: leaf.physical_type
        for leaf in footer.leaves
        if not leaf.max_repetition_level and leaf.logical_type.type in types.get(leaf.physical_type, ())
    }


def chunk_range(size: int, footer: Footer, row_group: int, column: int) -> Range:
    """Where a column chunk of a file of `size` bytes lies. Raises BadFile if it is encrypted or the footer points outside the file."""
    chunk = footer.chunk(row_group, column)
    end = chunk.start + chunk.compressed
    if chunk.start < 4 or end < chunk.start or end > size - 8:
        raise BadFile(footer.name, f"is damaged (column chunk at bytes {chunk.start:,}-{end:,} of a file of {size:,})")
    return Range(chunk.start, min(end + SLACK, size))


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut to 160 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
