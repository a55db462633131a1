"""Row groups decoded from the byte ranges that were fetched of them.

Only the wanted column chunks of a file are ever in memory. Embeddings, most of its bytes, are not read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.footer import BadFile, Footer, column_index, first_line, parse_packed, text_column
from tasks.corpus.parquet.pages import Chunk, DamagedPage, Memory, UnknownPage, read_chunk
from tasks.corpus.parquet.ranges import Parts, Range, coalesce
from tasks.corpus.parquet.views import Views
from tasks.store.blobs import Blob


def fetched(name: str, parts: Parts, start: int, end: int) -> memoryview:
    """Bytes [start, end) of a blob. Raises OSError if they were not fetched."""
    for first, data in parts:
        if first <= start and end <= first + len(data):
            return data[start - first : end - first]
    raise OSError(f"{name}: bytes {start}-{end} were not fetched")


class RangeFile(io.RawIOBase):
    """A read-only file of `size` bytes, of which only some ranges are present. Reading elsewhere raises OSError."""

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


def decode(size: int, footer: Footer, parts: Parts, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Columns of some row groups, by their exact names, from the parts that were fetched. Raises BadFile."""
    name, leaves = footer.name, {column_index(footer, column): column for column in columns}
    try:
        # Given a RawIOBase, pyarrow would buffer it, and without the footer it would ask for the end of the file again.
        file = pa.PythonFile(RangeFile(name, size, parts), mode="r")
        reader = pq.ParquetFile(file, metadata=footer.metadata, pre_buffer=False)
        # By position: pyarrow takes a name with dots for a path only, and a name that occurs twice for both columns.
        table = reader.reader.read_row_groups(list(groups), column_indices=sorted(leaves), use_threads=False)
        while any(pa.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        table = table.rename_columns([leaves[leaf] for leaf in sorted(leaves)])
        expected = sum(footer.metadata.row_group(group).num_rows for group in groups)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, groups, first_line(error)) from error
    if table.num_rows != expected:
        raise _damaged(name, groups, f"{table.num_rows:,} rows instead of {expected:,}")
    return table


def _damaged(name: str, groups: Sequence[int], reason: str) -> BadFile:
    return BadFile(name, f"is damaged (row groups {min(groups)}-{max(groups)}: {reason})")


@dataclass(frozen=True)
class Reading:
    """Row groups of one blob that are read together.

    `footer` is the packed footer of the file. For each row group: its number in the file (`groups`), the row of the file
    where it begins (`first_rows`), its rows, and the byte range of its compressed text. `beside` are ranges of other
    columns to fetch along.
    """

    blob: Blob
    footer: bytes
    groups: tuple[int, ...]
    first_rows: tuple[int, ...]
    rows: tuple[int, ...]
    ranges: tuple[Range, ...]
    beside: tuple[Range, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the compressed text."""
        return sum(r.end - r.start for r in self.ranges)

    def requests(self) -> list[Range]:
        """The ranges to fetch: one for neighbouring row groups of a file without other large columns."""
        return coalesce((*self.ranges, *self.beside))

    def parsed(self) -> Footer:
        """The footer of the file. Raises BadFile."""
        return parse_packed(self.blob.name, self.footer)

    def table(self, parts: Parts, columns: Sequence[str]) -> pa.Table:
        """Some columns of all rows. Raises BadFile."""
        return decode(self.blob.size, self.parsed(), parts, self.groups, columns)

    def texts(self, parts: Parts, column: str, memory: Memory) -> Views:
        """The texts of all rows, left in their pages; a null is an empty text. Valid until this thread reuses `memory`.

        Raises BadFile.
        """
        name, footer = self.blob.name, self.parsed()
        position = text_column(footer, column)
        if (levels := footer.leaves[position].max_definition_level) > 1:  # a field of an optional struct
            return self._general_texts(parts, column)
        columns = [footer.chunk(group, position) for group in self.groups]
        memory.reset(sum(stored.decompressed for stored in columns))
        found = []
        for group, rows, place, stored in zip(self.groups, self.rows, self.ranges, columns, strict=True):
            data = fetched(name, parts, place.start, place.end)
            chunk = Chunk(data, stored.codec, rows, levels > 0, stored.decompressed)
            try:
                found.append(read_chunk(chunk, memory))
            except DamagedPage as error:
                raise BadFile(name, f"is damaged (row group {group}: {first_line(error)})") from error
            except UnknownPage:
                return self._general_texts(parts, column)
        return Views.concat(found)

    def _general_texts(self, parts: Parts, column: str) -> Views:
        """The same by pyarrow's reader. Raises BadFile."""
        texts = self.table(parts, [column]).column(column).cast(pa.large_binary(), safe=False)
        try:
            return Views.concat(map(Views.of, texts.chunks))
        except ValueError as error:
            raise BadFile(self.blob.name, f"has {error}") from error

    def row(self, position: int) -> int:
        """The row of the file that is at `position` of this reading."""
        ends = np.cumsum(self.rows)
        group = int(np.searchsorted(ends, position, side="right"))
        return self.first_rows[group] + position - int(ends[group] - self.rows[group])


def take_texts(reading: Reading, texts: Views, rows: np.ndarray) -> Views:
    """The texts at `rows` of what was read. Raises BadFile for bytes that are not UTF-8."""
    taken = texts[rows]
    if (number := taken.invalid()) is not None:
        try:
            taken[number : number + 1].bytes()[0].decode()
        except UnicodeDecodeError as error:
            place = f"row {reading.row(int(rows[number])):,}, byte {error.start:,}: {error.reason}"
            raise BadFile(reading.blob.name, f"has text that is not UTF-8 ({place})") from error
    return taken
