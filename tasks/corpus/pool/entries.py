"""What the index keeps of one blob, read from its footer and some of its columns by coalesced ranges, and put down as
one intermediate file: `<number>.<what is in it>`, a line of JSON that says where each part lies, and the parts.

ENTRY is the footer, row groups and token counts; the others are columns, by their keys. What is there is not read again, so an
index grows by the columns that it lacks and an interrupted reading goes on.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.corpus.parquet.footer import (
    BadFile,
    Footer,
    chunk_range,
    find_column,
    number_column,
    parse_packed,
    read_footer,
    single_values,
    text_column,
    value_column,
)
from tasks.corpus.parquet.ranges import Parts, Range, coalesce, read_parts
from tasks.corpus.parquet.reading import decode
from tasks.corpus.pool.column import Wanted, encoded, is_text, known, numbers, recognized
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Tick
from tasks.spec import Pool
from tasks.store.artifact import fingerprint
from tasks.store.blobs import Blob, Blobs
from tasks.store.named import open_named

FILES_IN_FLIGHT = 32
"""The client reads up to ten ranges of each at once. They are small, so latency decides."""

ROW_GROUPS = ("file", "row_group", "rows", "start", "end", "text_bytes")
UNKNOWN = -1
LINE = 4096
"""Bytes in which the end of a first line is looked for at first."""
ENTRY = "entry"

Places = Mapping[tuple[int, str], tuple[str, int, int]]
"""{(number of a blob, ENTRY or the key of a column): intermediate file, first byte, end}."""


@dataclass(frozen=True)
class BlobToRead:
    """A blob with its number in the pool; of an indexed one its packed footer, else None. `columns`: those to read; `keys`: those that
    are its folders; `problem`: why it is left out."""

    number: int
    blob: Blob
    footer: bytes | None
    columns: tuple[Wanted, ...]
    keys: Mapping[str, pa.Scalar] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class IndexJob:
    """Some blobs to be read from `urls`, as `open_named` takes them, into `scratch`."""

    pool: Pool
    urls: Mapping[str, str]
    blobs: tuple[BlobToRead, ...]
    scratch: Scratch
    threads: int


def index_blobs(job: IndexJob, tick: Tick) -> None:
    """Write a file for each blob to the scratch space. One that cannot be used is recorded with its problem."""
    source = open_named(job.urls)
    with (
        ThreadPoolExecutor(FILES_IN_FLIGHT) as files,
        ThreadPoolExecutor(job.threads) as decoders,  # with a thread per file it takes four times the CPU
    ):

        def one(todo: BlobToRead) -> int:
            try:
                fetched = _fetch(source, todo, job.pool)
                entry, columns = decoders.submit(_decode, todo, fetched, job.pool).result()
            except BadFile as error:
                entry, columns = Entry(error.reason), {}
            parts = {w.key: (columns.get(w) or ColumnEntry(entry.problem)).to_parts() for w in todo.columns}
            if todo.footer is None:
                parts[ENTRY] = entry.to_parts()
            _write(job.scratch, todo.number, parts)
            return len(entry.tokens)

        before = dict(vars(source.counters))
        futures = [files.submit(one, todo) for todo in job.blobs]
        try:
            for future in futures:
                rows = future.result()
                now = dict(vars(source.counters))
                tick({"units": 1, "rows": rows} | {name: now[name] - before[name] for name in now})
                before = now
        except BaseException:
            files.shutdown(wait=False, cancel_futures=True)
            raise


def _write(scratch: Scratch, number: int, parts: Mapping[str, Sequence[bytes | memoryview]]) -> None:
    sizes = {key: sum(map(len, part)) for key, part in parts.items()}
    head = json.dumps(sizes).encode() + b"\n"
    name = f"{number:08d}.{fingerprint(sorted(parts))}"
    scratch.write(name, [head, *(piece for part in parts.values() for piece in part)])


def find_parts(scratch: Scratch) -> Places:
    """Where everything lies that the intermediate files hold."""
    files = scratch.sizes()

    def of_file(name: str) -> Places:
        sizes, at = _head(lambda end: scratch.read(name, 0, min(end, files[name])))
        ends = itertools.accumulate(sizes.values(), initial=at)
        return {
            (int(name[:8]), key): (name, *place) for key, place in zip(sizes, itertools.pairwise(ends), strict=True)
        }

    with ThreadPoolExecutor(FILES_IN_FLIGHT) as threads:  # they may lie in a remote store
        return {what: place for found in threads.map(of_file, files) for what, place in found.items()}


@dataclass
class Entry:
    """Footer, row groups (as in ROW_GROUPS, without the file) and token counts of one blob, or why it cannot be used."""

    problem: str = ""
    footer: bytes = b""
    groups: np.ndarray = field(default_factory=lambda: np.zeros((0, len(ROW_GROUPS) - 1), np.int64))
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    columns: list[str] = field(default_factory=list)
    """Names of the columns of single values."""
    bytes_read: int = 0
    requests: int = 0

    def to_parts(self) -> list[bytes | memoryview]:
        """A line of JSON, then the footer, the row groups and the token counts."""
        head = {name: getattr(self, name) for name in ("problem", "columns", "bytes_read", "requests")}
        sizes = {"footer": len(self.footer), "row_groups": len(self.groups), "rows": len(self.tokens)}
        return [json.dumps([head, sizes]).encode() + b"\n", self.footer, _bytes(self.groups), _bytes(self.tokens)]

    @classmethod
    def from_bytes(cls, data: memoryview) -> "Entry":
        (head, sizes), at = _head(lambda end: data[:end])
        footer, at = bytes(data[at : at + sizes["footer"]]), at + sizes["footer"]
        width = len(ROW_GROUPS) - 1
        groups = np.frombuffer(data, np.int64, sizes["row_groups"] * width, at).reshape(-1, width)
        tokens = np.frombuffer(data, np.int32, sizes["rows"], at + groups.nbytes)
        return cls(footer=footer, groups=groups, tokens=tokens, **head)


@dataclass
class ColumnEntry:
    """The values of one column in one blob as `tasks.corpus.pool.column` keeps them, or why there are none."""

    reason: str = ""
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    texts: list[str] | None = None
    """The text of each code, if the values are codes."""

    def to_parts(self) -> list[bytes | memoryview]:
        """A line of JSON, then the values."""
        head = {"reason": self.reason, "texts": self.texts, "type": self.values.dtype.str}
        return [json.dumps(head).encode() + b"\n", _bytes(self.values)]

    @property
    def holds_nothing(self) -> bool:
        """Whether it is one of numbers and none is there: JSON lines whose field is null throughout look so, too."""
        if self.texts is not None or self.values.dtype.kind == "u":
            return False
        first = self.values[:1]  # answers for most columns
        return not known(first).any() and not known(self.values).any()

    @classmethod
    def from_bytes(cls, data: memoryview) -> "ColumnEntry":
        head, at = _head(lambda end: data[:end])
        return cls(head["reason"], np.frombuffer(data, head["type"], offset=at), head["texts"])


def _bytes(values: np.ndarray) -> bytes | memoryview:
    return memoryview(np.ascontiguousarray(values)).cast("B") if values.size else b""


def _head(first: Callable[[int], memoryview]) -> tuple[Any, int]:
    """The line of JSON that begins what `first` gives the first bytes of, and where it ends."""
    size = LINE
    while (end := (data := bytes(first(size))).find(b"\n")) < 0:
        size *= 16
    return json.loads(data[:end]), end + 1


@dataclass(frozen=True)
class _Fetched:
    """What was read of one blob: its footer; its row groups; the columns to decode, and the ranges that
    hold them; and why others cannot be read."""

    footer: Footer
    groups: list[tuple[int, ...]]
    columns: Sequence[str]
    problems: Mapping[str, str]
    parts: Parts
    requests: int


def _fetch(source: Blobs, todo: BlobToRead, pool: Pool) -> _Fetched:
    """The footer and the columns of one blob. Raises BadFile if it cannot be part of the pool."""
    blob, requests = todo.blob, 0
    if todo.problem:
        raise BadFile(blob.name, todo.problem)

    def fetch(ranges: Sequence[Range]) -> Parts:
        nonlocal requests
        requests += len(ranges)
        return read_parts(source, blob, ranges)

    places: dict[str, int] = {}
    if todo.footer is None:
        footer, end = read_footer(blob.name, blob.size, lambda r: fetch([r])[0][1])
        groups = _row_groups(blob.size, footer, pool)
        if (tokens := _token_column(footer, pool)) is not None:
            places[tokens] = number_column(footer, tokens)
    else:
        footer, end = parse_packed(blob.name, todo.footer), (blob.size, memoryview(b""))
        groups = [(group, rows) for group, rows in enumerate(footer.rows) if rows]
    problems = {}
    ranges = []
    for name in dict.fromkeys([*places, *(wanted.name for wanted in todo.columns)]):
        try:
            if name in todo.keys and find_column(footer, name) is None:
                continue
            place = value_column(footer, name)
            found = [chunk_range(blob.size, footer, group, place) for group, *_ in groups]
        except BadFile as error:
            if name in places:
                raise
            problems[name] = error.reason
            continue
        places[name] = place
        ranges += found
    parts = [end, *fetch(coalesce(r for r in ranges if r.start < end[0]))]
    return _Fetched(footer, groups, list(places), problems, parts, requests)


def _row_groups(size: int, footer: Footer, pool: Pool) -> list[tuple[int, ...]]:
    """Those that have rows: some writers leave empty ones, of which nothing lies in the file."""
    text, total = text_column(footer, pool.text_column), footer.metadata.num_rows
    if total == 0:
        raise BadFile(footer.name, "is empty (0 rows)")
    if sum(footer.rows) != total or min(footer.rows) < 0:
        raise BadFile(footer.name, f"is damaged (its row groups do not add up to {total:,} rows)")
    groups = []
    for group, rows in enumerate(footer.rows):
        if rows:
            place = chunk_range(size, footer, group, text)
            groups.append((group, rows, place.start, place.end, footer.chunk(group, text).decompressed))
    return groups


def _token_column(footer: Footer, pool: Pool) -> str | None:
    name = pool.token_count_column
    return name if name and find_column(footer, name) is not None else None


def _decode(todo: BlobToRead, fetched: _Fetched, pool: Pool) -> tuple[Entry, dict[Wanted, ColumnEntry]]:
    """What is kept of one blob. Raises BadFile if its token counts are damaged; another column that is has a reason instead."""
    blob, present = todo.blob, [group for group, *_ in fetched.groups]

    def read(columns: Sequence[str]) -> pa.Table:
        return decode(blob.size, fetched.footer, fetched.parts, present, columns)

    tables, problems = {}, dict(fetched.problems)
    try:
        tables = dict.fromkeys(fetched.columns, read(fetched.columns) if fetched.columns else None)
    except BadFile:
        for name in fetched.columns:  # one by one, to know which
            try:
                tables[name] = read([name])
            except BadFile as error:
                problems[name] = error.reason
    entry = Entry()
    if todo.footer is None:
        if (counts := _token_column(fetched.footer, pool)) in problems:
            raise BadFile(blob.name, problems[counts])
        entry = Entry(
            footer=fetched.footer.data,
            groups=np.array(fetched.groups, np.int64),
            tokens=_tokens(tables[counts].column(counts) if counts else None, fetched.footer.metadata.num_rows),
            columns=list(dict.fromkeys([*single_values(fetched.footer), *todo.keys])),
            bytes_read=sum(len(data) for _, data in fetched.parts),
            requests=fetched.requests,
        )
    columns = {}
    for wanted in todo.columns:
        if wanted.name in problems:
            columns[wanted] = ColumnEntry(problems[wanted.name])
            continue
        if wanted.name in tables:
            values = tables[wanted.name].column(wanted.name)
        else:
            values = pa.chunked_array([pa.repeat(todo.keys[wanted.name], fetched.footer.metadata.num_rows)])
        try:
            columns[wanted] = _kept(wanted, values)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            columns[wanted] = ColumnEntry(
                f"has {wanted.name!r} with bytes that are no UTF-8: a number or text is needed"
            )
        except pa.ArrowNotImplementedError:  # Arrow's own types, such as durations, are numbers to Parquet
            columns[wanted] = ColumnEntry(f"has {wanted.name!r} as {values.type}: a number or text is needed")
    return entry, columns


def _kept(wanted: Wanted, values: pa.ChunkedArray) -> ColumnEntry:
    if wanted.use == "ids":
        return ColumnEntry(values=recognized(values))
    return ColumnEntry("", *encoded(values)) if is_text(values.type) else ColumnEntry(values=numbers(values))


def _tokens(column: pa.ChunkedArray | None, rows: int) -> np.ndarray:
    counts = None if column is None else column.to_numpy()
    if rows and counts is not None and counts.min() >= 0 and counts.max() < 2**31:  # not if one is NaN
        return counts.astype(np.int32)
    tokens = np.full(rows, UNKNOWN, np.int32)
    if counts is not None:
        np.copyto(tokens, counts, where=(counts >= 0) & (counts < 2**31), casting="unsafe")
    return tokens
