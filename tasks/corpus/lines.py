"""JSON lines as Parquet: one object a line, plain or compressed by gzip or Zstandard, read from front to back in bounded memory.

A compressed stream cannot be read by ranges, and a plain one not by columns. So each file is read once, and written as a Parquet file
whose columns are the fields with single values, those of objects within by their path (`meta.score`); lists are left out, and so are
objects that are null. A row group is a block of lines. A field is a number, a truth value or text by all its values in the file; of
mixed kinds, it is text.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import RawIOBase
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.footer import BadFile, first_line
from tasks.errors import StoreError

ENDINGS = {".jsonl": None, ".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
"""Endings of such files, with the codec of each as pyarrow names it."""

BLOCK_BYTES = 8 << 20
"""Bytes of lines in a row group, at least one line."""
MOST_BYTES = 1 << 30
"""A longer line is no document that can be used."""
REQUEST_BYTES = 8 << 20
BOM = b"\xef\xbb\xbf"
"""What some editors put in front of a file."""
MOST_FIELDS = 1_000
"""Further ones are left out: some objects have texts for keys."""
KINDS = (pa.bool_(), pa.int64(), pa.float64(), pa.string())
"""Types of columns; a later one holds what the earlier ones do."""
OF_TYPE = {bool: 0, int: 1, float: 2, str: 3}


LONG = re.compile(rb"[0-9]{19}")
"""What may be a whole number beyond 64 bits, of which orjson makes a float."""


def is_lines(name: str) -> bool:
    """Whether a file of that name holds JSON lines."""
    return name.endswith(tuple(ENDINGS))


def write_columns(
    name: str, size: int, read: Callable[[int, int], memoryview], path: Path, blocks: int | None = None
) -> int:
    """Write the JSON lines of a file of `size` bytes, of which `read` gives ranges, as Parquet to `path`; returns its rows.

    `blocks`: of its beginning alone. Raises BadFile, naming the line.
    """
    if not size:
        raise BadFile(name, "is empty (0 bytes)")
    number, growing = 1, _Growing(path)
    try:
        for lines in islice(_blocks(name, _stream(name, size, read)), blocks):
            growing.append(*_columns(name, lines, number))
            number += len(lines)
        rows = growing.close()
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, StoreError) or (
            isinstance(error, OSError) and error.errno is not None
        ):  # of store or disk
            raise
        raise BadFile(name, f"is damaged (behind line {number - 1:,}: {first_line(error)})") from error
    if not rows:
        raise BadFile(name, "is empty (it has no line with a field)")
    return rows


class _Ahead(RawIOBase):
    """A blob from front to back, each request made while the bytes before it are used."""

    def __init__(self, size: int, read: Callable[[int, int], memoryview]):
        super().__init__()
        self._thread = ThreadPoolExecutor(1)
        self._left = memoryview(b"")
        starts = range(0, size, REQUEST_BYTES)
        self._parts = self._fetch([(start, min(start + REQUEST_BYTES, size)) for start in starts], read)

    def _fetch(self, ranges: list[tuple[int, int]], read: Callable[[int, int], memoryview]) -> Iterator[memoryview]:
        waiting = [self._thread.submit(read, *part) for part in ranges[:1]]
        for following in [*ranges[1:], None]:
            arrived = waiting.pop().result()
            if following is not None:
                waiting.append(self._thread.submit(read, *following))
            yield arrived

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> memoryview:
        if not self._left:
            self._left = next(self._parts, memoryview(b""))
        size = len(self._left) if size < 0 else size
        data, self._left = self._left[:size], self._left[size:]
        return data

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()


def _stream(name: str, size: int, read: Callable[[int, int], memoryview]) -> Iterator[bytes]:
    """The bytes of a file, decompressed, some at a time."""
    codec = next(codec for ending, codec in ENDINGS.items() if name.endswith(ending))
    with _Ahead(size, read) as blob:
        file = pa.PythonFile(blob, mode="r")
        stream = pa.CompressedInputStream(file, codec) if codec else file
        while data := stream.read(BLOCK_BYTES):
            yield data


def _blocks(name: str, stream: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in blocks of about `BLOCK_BYTES`."""
    waiting: list[bytes] = []
    size, number = 0, 1
    for data in stream:
        waiting.append(data)
        size += len(data)
        if size >= BLOCK_BYTES and (cut := data.rfind(b"\n") + 1):
            lines = b"".join([*waiting[:-1], data[:cut]]).split(b"\n")[:-1]
            yield lines
            number += len(lines)
            waiting, size = [data[cut:]], len(data) - cut
        if size > MOST_BYTES:
            raise BadFile(name, f"has a line of more than {MOST_BYTES:,} bytes (line {number:,})")
    if rest := b"".join(waiting):
        yield rest.removesuffix(b"\n").split(b"\n")


def _columns(name: str, lines: list[bytes], number: int) -> tuple[dict[str, pa.Array], int]:
    """The fields of some lines, the first of which is line `number`, as columns of `KINDS` or of nulls, and how many rows they have."""
    columns: dict[str, list[Any]] = {}
    rows = 0
    for place, line in enumerate(lines, number):
        if line and not line.isspace():
            try:
                _add(columns, rows, _record(name, line, place), "")
            except RecursionError:
                raise BadFile(name, f"has objects nested too deeply in line {place:,}") from None
            rows += 1
    return {key: _array([*column, *[None] * (rows - len(column))]) for key, column in columns.items()}, rows


def _add(columns: dict[str, list[Any]], row: int, record: Mapping[str, Any], prefix: str) -> None:
    """Add the fields of an object to the columns as their values in `row`; of two fields of one name the first counts."""
    for key, value in record.items():
        kind = type(value)
        if kind is dict:
            _add(columns, row, value, f"{prefix}{key}.")
            continue
        column = columns.get(prefix + key)
        if column is None:
            if kind is list or len(columns) == MOST_FIELDS:
                continue
            column = columns[prefix + key] = []
        if len(column) <= row:
            column.extend([None] * (row - len(column)))
            column.append(None if kind is list else value)


def _record(name: str, line: bytes, number: int) -> dict[str, Any]:
    """The object in a line. Python's own parser takes NaN, which Python writes, keeps whole numbers of any length, and says what is wrong."""
    if number == 1:
        line = line.removeprefix(BOM)
    try:
        record = json.loads(line) if LONG.search(line) else orjson.loads(line)
    except ValueError:
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadFile(name, f"has no JSON object in line {number:,} ({first_line(error)})") from error
    if not isinstance(record, dict):
        raise BadFile(name, f"has no JSON object in line {number:,}, but {line[:40].decode(errors='replace')!r}")
    return record


def _array(values: list[Any]) -> pa.Array:
    kinds = {OF_TYPE[kind] for kind in set(map(type, values)) - {type(None)}}
    if kinds == {1, 2} or kinds == {0, 2}:
        values = [None if value is None else _float(value) for value in values]
    elif kinds == {0, 1}:
        values = [None if value is None else int(value) for value in values]
    elif 3 in kinds and len(kinds) > 1:
        values = [value if value is None or type(value) is str else json.dumps(value) for value in values]
    kind = KINDS[max(kinds)] if kinds else pa.null()
    try:
        return pa.array(values, kind)
    except OverflowError:  # whole numbers beyond 64 bits are ids
        return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf


class _Growing:
    """A Parquet file whose columns and their types follow from what is appended: it is copied when a block has others."""

    def __init__(self, path: Path):
        self._path, self._rows = path, 0
        self._types: dict[str, pa.DataType] = {}
        self._writer: pq.ParquetWriter | None = None

    def append(self, columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> None:
        """Append rows as a row group."""
        types = dict(self._types)
        for name, column in columns.items():
            if name in types or len(types) < MOST_FIELDS:
                types[name] = _wider(types.get(name, pa.null()), column.type)
        if types != self._types:
            self._types = types
            self._begin()
        self._write(columns, rows)
        self._rows += rows

    def close(self) -> int:
        """Finish the file; returns its rows, 0 if there was no column and so no file."""
        if self._writer is None:
            return 0
        self._writer.close()
        return self._rows

    def _begin(self) -> None:
        first, before = self._writer is None, self._path.with_name(f"{self._path.name}.before")
        objects = {name[:place] for name in self._types for place, each in enumerate(name) if each == "."}  # or null
        if self._writer is not None:
            self._writer.close()
            self._path.replace(before)
        # a column without any value is one of numbers: in most files that lack all values it is a rating
        fields = [
            (name, pa.float64() if pa.types.is_null(kind) else kind)
            for name, kind in self._types.items()
            if not (pa.types.is_null(kind) and name in objects)
        ]
        options = {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "write_statistics": False}
        self._writer = pq.ParquetWriter(self._path, pa.schema(fields), **options)
        if first:
            self._write({}, self._rows)  # lines without a field
        else:
            with pq.ParquetFile(before) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    self._write(dict(zip(table.column_names, table.columns, strict=True)), len(table))
            before.unlink()

    def _write(self, columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> None:
        if rows and self._writer is not None:
            schema = self._writer.schema
            fitted = [
                columns[field.name].cast(field.type, safe=False)
                if field.name in columns
                else pa.nulls(rows, field.type)
                for field in schema
            ]
            self._writer.write_table(pa.table(fitted, schema=schema), row_group_size=rows)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both."""
    order = (pa.null(), *KINDS)
    return order[max(order.index(one), order.index(other))]
