"""Texts of documents out of row groups: checked, contiguous, and recognizable by their content."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.parquet.pages import Chunk, DamagedPage, Memory, UnknownPage, read_chunk
from tasks.corpus.parquet.ranges import (
    BadFile,
    Parts,
    Range,
    coalesce,
    decode,
    fetched,
    first_line,
    parse_packed,
    text_column,
)
from tasks.corpus.parquet.views import Views
from tasks.store.blobs import Blob

DIGEST = 16
"""Bytes of a text's BLAKE2b digest: with 128 bits, 52 million documents collide by chance once in 10^23 pools."""


@dataclass(frozen=True)
class Reading:
    """Row groups of one blob that are read at once: their numbers, first rows, rows and compressed byte ranges of the text;
    `footer`: that of the file, packed; `beside`: ranges of other columns that are fetched with it."""

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
        """What to fetch: neighbouring row groups of a file without other large columns are one request."""
        return coalesce((*self.ranges, *self.beside))

    def metadata(self) -> pq.FileMetaData:
        """What the file's footer says. Raises BadFile."""
        return parse_packed(self.blob.name, self.footer)

    def table(self, parts: Parts, columns: Sequence[str]) -> pa.Table:
        """Decode the fetched parts. Raises BadFile."""
        table = decode(self.blob.name, self.blob.size, self.metadata(), parts, self.groups, columns)
        if table.num_rows != sum(self.rows):
            raise BadFile(self.blob.name, f"is damaged ({table.num_rows:,} rows instead of {sum(self.rows):,})")
        return table

    def texts(self, parts: Parts, column: str, memory: Memory) -> Views:
        """Every text of what was fetched, where it lies; a null is an empty text. They hold until this thread uses `memory` again.

        Raises BadFile.
        """
        name = self.blob.name
        footer = self.metadata()
        position = text_column(name, footer, column)
        optional = footer.schema.column(position).max_definition_level > 0
        columns = [footer.row_group(group).column(position) for group in self.groups]
        memory.reset(sum(stored.total_uncompressed_size for stored in columns))
        found = []
        for group, rows, place, stored in zip(self.groups, self.rows, self.ranges, columns, strict=True):
            chunk = Chunk(
                fetched(name, parts, place.start, place.end),
                stored.compression,
                rows,
                optional,
                stored.total_uncompressed_size,
            )
            try:
                found.append(read_chunk(chunk, memory))
            except DamagedPage as error:
                raise BadFile(name, f"is damaged (row group {group}: {first_line(error)})") from error
            except UnknownPage:
                return self._general_texts(parts, column)
        return Views.concat(found)

    def _general_texts(self, parts: Parts, column: str) -> Views:
        """The same by a general reader. Raises BadFile."""
        texts = self.table(parts, [column]).column(column).cast(pa.large_binary(), safe=False)
        try:
            return Views.concat(map(Views.of, texts.chunks))
        except ValueError as error:
            raise BadFile(self.blob.name, f"has {error}") from error

    def row(self, position: int) -> int:
        """Row in the file of a row of the table."""
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


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets, int64 (n + 1,), and the bytes they point into, uint8."""
    _, offsets, data = texts.buffers()
    first = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return first, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def lengths(texts: pa.LargeStringArray) -> np.ndarray:
    """UTF-8 bytes of each text, int64 (n,); null: 0."""
    offsets, _ = buffers(texts)
    sizes = np.diff(offsets)
    return np.where(texts.is_valid().to_numpy(zero_copy_only=False), sizes, 0) if texts.null_count else sizes


def digest(data: np.ndarray, start: int, end: int) -> bytes:
    """The BLAKE2b digest of one text."""
    return hashlib.blake2b(data[start:end], digest_size=DIGEST).digest()


def digests(texts: pa.LargeStringArray) -> np.ndarray:
    """Digest of each text, (n,) of 16 bytes."""
    offsets, data = buffers(texts)
    joined = b"".join(digest(data, offsets[i], offsets[i + 1]) for i in range(len(texts)))
    return np.frombuffer(joined, np.dtype((np.void, DIGEST)))


def signatures(texts: pa.LargeStringArray) -> np.ndarray:
    """A cheap 64-bit number of each text, from its length and its first and last 8 bytes: equal texts, equal numbers."""
    offsets, data = buffers(texts)
    start, size = offsets[:-1], np.diff(offsets)
    mixed = size.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    long = size >= 8
    if long.any():
        words = np.ndarray((len(data) - 7,), np.dtype("<u8"), data.data, strides=(1,))
        head, tail = words[start[long]], words[start[long] + size[long] - 8]
        with np.errstate(over="ignore"):
            mixed[long] ^= head * np.uint64(0xBF58476D1CE4E5B9) ^ tail * np.uint64(0x94D049BB133111EB)
    return mixed


@dataclass(frozen=True)
class KnownTexts:
    """Texts to recognize exactly: sorted signatures to look up first, digests to be sure."""

    signatures: np.ndarray
    digests: frozenset[bytes]

    @classmethod
    def of(cls, parts: Iterable[pa.LargeStringArray]) -> "KnownTexts":
        numbers, hashes = [np.zeros(0, np.uint64)], set()
        for texts in parts:
            numbers.append(signatures(texts))
            hashes.update(value.tobytes() for value in digests(texts))
        return cls(np.unique(np.concatenate(numbers)), frozenset(hashes))

    def matches(self, texts: pa.LargeStringArray) -> np.ndarray:
        """Whether each text is one of these, bool (n,). Only texts with a known signature are hashed."""
        found = np.zeros(len(texts), bool)
        if not len(self.signatures) or not len(texts):
            return found
        own = signatures(texts)
        place = np.minimum(np.searchsorted(self.signatures, own), len(self.signatures) - 1)
        offsets, data = buffers(texts)
        for i in np.flatnonzero(self.signatures[place] == own):
            found[i] = digest(data, offsets[i], offsets[i + 1]) in self.digests
        return found
