"""The text column of Parquet, read from its pages: decompressed once and not copied again.

A general reader copies every text out of its page, twice where a dictionary was tried. Here a text stays in its page, and callers
get views of it. Pages follow https://parquet.apache.org/docs/file-format/: encodings PLAIN and RLE_DICTIONARY, uncompressed or
compressed by Snappy or Zstandard. Anything else is left to pyarrow.

Against pyarrow 26's reader, preparing an arm of 16.5 % takes 14 to 21 % less CPU and 6 to 22 % less memory, preparing all documents
7 to 9 % and 10 to 18 % (benchmarks/data/README.md). About half of that CPU is cramjam's Snappy: 23 ms for 32 MB, pyarrow's 38 ms.
"""

import struct
import threading
from dataclasses import dataclass

import cramjam
import numpy as np
import pyarrow as pa

from tasks.corpus.parquet.thrift import read_struct, read_varint
from tasks.corpus.parquet.views import Views

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8
LENGTH = struct.Struct("<I")
CODECS = ("UNCOMPRESSED", "SNAPPY", "ZSTD")
DECODING = (pa.ArrowException, cramjam.DecompressionError)


MEMORY_BYTES = 80 << 20
"""The most that a thread keeps: a footer may claim anything."""


class Memory(threading.local):
    """Memory that each thread reuses for decompressed Snappy pages: the first touch of fresh memory costs as much as the work.
    (cramjam decompresses into it; pyarrow always allocates.)"""

    def __init__(self) -> None:
        self._data, self._used = np.empty(0, np.uint8), 0

    def reset(self, size: int) -> None:
        """Make room for `size` bytes, at most `MEMORY_BYTES`. What was taken before will be overwritten."""
        if len(self._data) < (size := min(size, MEMORY_BYTES)):
            self._data = np.empty(size + size // 8, np.uint8)
        self._used = 0

    def take(self, size: int) -> np.ndarray:
        """An array of uint8 (size,); fresh memory if there is no room left."""
        if len(self._data) - self._used < size:
            return np.empty(size, np.uint8)
        self._used += size
        return self._data[self._used - size : self._used]


class DamagedPage(ValueError):
    """Bytes that contradict their headers."""


class UnknownPage(Exception):
    """A page that only pyarrow can read."""


@dataclass(frozen=True)
class Chunk:
    """A column chunk of byte arrays: its bytes from the first page on, its codec as pyarrow names it, its rows, whether they may be
    null, and the most bytes that its pages can have together."""

    data: memoryview
    codec: str
    rows: int
    optional: bool
    size: int


def read_chunk(chunk: Chunk, memory: Memory | None = None) -> Views:
    """The texts of all rows of a chunk; a null is an empty text. Valid until `memory` is reset.

    Raises DamagedPage, or UnknownPage.
    """
    if chunk.codec not in CODECS:
        raise UnknownPage(chunk.codec)
    try:
        return Views.concat(_read_pages(chunk, memory or Memory()))
    except (LookupError, TypeError, ValueError, OverflowError, OSError, struct.error, *DECODING) as error:
        raise DamagedPage(str(error) or type(error).__name__) from error


def _read_pages(chunk: Chunk, memory: Memory) -> list[Views]:
    data, at, left, room = chunk.data, 0, chunk.rows, chunk.size
    dictionary: Views | None = None
    found = []
    while left:
        header, at = read_struct(data, at)
        kind, size, compressed = header[1], header[2], header[3]
        body = data[at : at + compressed]
        at += compressed
        room -= size
        if compressed < 0 or size < 0 or len(body) != compressed:
            raise DamagedPage("a page larger than its column chunk")
        if room < 0:  # the footer promised less: pyarrow decides whether that matters
            raise UnknownPage("more than its footer says")
        if kind == DICTIONARY:
            if header[7][2] not in (PLAIN, PLAIN_DICTIONARY):
                raise UnknownPage(f"dictionary of encoding {header[7][2]}")
            dictionary = _plain(_decompress(chunk.codec, body, size, memory), 0, header[7][1])
        elif kind in (DATA, DATA_V2):
            if header[5 if kind == DATA else 8][1] > left:  # before allocating
                raise DamagedPage("more rows than its row group")
            found.append(_data_page(chunk, header, body, size, dictionary, memory))
            left -= len(found[-1])
        elif kind != INDEX:
            raise UnknownPage(f"page of type {kind}")
    return found


def _data_page(
    chunk: Chunk, header: dict, body: memoryview, size: int, dictionary: Views | None, memory: Memory
) -> Views:
    """The texts of a data page, one for each of its rows."""
    defined = None
    if header[1] == DATA:
        rows, encoding = header[5][1], header[5][2]
        page, at = _decompress(chunk.codec, body, size, memory), 0
        if chunk.optional:
            if header[5][3] != RLE:
                raise UnknownPage(f"levels of encoding {header[5][3]}")
            at = 4 + LENGTH.unpack_from(page)[0]
            defined = _levels(memoryview(page).cast("B")[4:at], rows)
    else:
        rows, encoding, levels, repeated = (header[8][i] for i in (1, 4, 5, 6))
        if min(repeated, levels) < 0 or repeated + levels > len(body):
            raise DamagedPage("levels larger than their page")
        if chunk.optional:
            defined = _levels(body[repeated : repeated + levels], rows)
        packed = chunk.codec if header[8].get(7, True) else "UNCOMPRESSED"
        levels += repeated  # which a flat column needs not, and some writers write
        page, at = _decompress(packed, body[levels:], size - levels, memory), 0
    count = rows if defined is None else int(defined.sum())
    if encoding == PLAIN:
        texts = _plain(page, at, count)
    elif encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY):
        if dictionary is None:
            raise DamagedPage("indices without a dictionary")
        view = memoryview(page).cast("B")
        indices = _hybrid(view[at + 1 :], view[at], count) if count else np.zeros(0, np.int64)
        if count and int(indices.max()) >= len(dictionary):
            raise DamagedPage("an index behind the end of its dictionary")
        texts = dictionary[indices]
    else:
        raise UnknownPage(f"encoding {encoding}")
    if defined is None or count == rows:
        return texts
    table = np.zeros((rows, 4), np.int32)
    table[defined] = texts.table
    return Views(table, texts.buffers)


def _levels(data: memoryview, rows: int) -> np.ndarray:
    """Which rows of a flat column are not null, bool (rows,)."""
    levels = _hybrid(data, 1, rows)
    if rows and int(levels.max()) > 1:
        raise DamagedPage("levels that a flat column has not")
    return levels.astype(bool)


def _decompress(codec: str, body: memoryview, size: int, memory: Memory) -> pa.Buffer:
    """The `size` bytes that a page holds."""
    if codec == "UNCOMPRESSED":
        if len(body) != size:
            raise DamagedPage("a page of another size than its header says")
        return pa.py_buffer(body)
    if size == 0:
        return pa.py_buffer(b"")
    if codec == "ZSTD":
        return pa.Codec("zstd").decompress(pa.py_buffer(body), size)
    if read_varint(body, 0)[0] != size:
        raise DamagedPage("a page of another size than its header says")
    page = memory.take(size)
    cramjam.snappy.decompress_raw_into(body, page)
    return pa.py_buffer(page)


def _plain(page: pa.Buffer, at: int, count: int) -> Views:
    """`count` byte arrays, each behind its length, from `at` on. Some writers leave zeros behind the last one."""
    end, data, length = page.size, memoryview(page), LENGTH.unpack_from
    if count < 0 or 4 * count > end - at:
        raise DamagedPage("more texts than fit into a page")
    starts = []
    for _ in range(count):
        starts.append(at)
        at += 4 + length(data, at)[0]
    if at > end:
        raise DamagedPage("texts that go on behind their page")
    first = np.array(starts, np.int64) + 4
    return Views.over(page, first, np.diff(first, append=at + 4) - 4)


def _hybrid(data: memoryview, width: int, count: int) -> np.ndarray:
    """`count` numbers of `width` bits in Parquet's mixture of runs and packed groups of eight, int64."""
    if width > 32 or count < 0:
        raise DamagedPage(f"{count} numbers of {width} bits")
    parts, got, at = [np.zeros(0, np.int64)], 0, 0
    while got < count:
        head, at = read_varint(data, at)
        if head & 1:
            size, wanted = (head >> 1) * width, min(head >> 1, -(-(count - got) // 8)) * width
            bits = np.unpackbits(np.frombuffer(data[at : at + wanted], np.uint8), bitorder="little")
            if head == 1 or len(bits) < min(8 * wanted, (count - got) * width):
                raise DamagedPage("packed numbers that are cut off")
            if width:
                values = bits[: len(bits) // width * width].reshape(-1, width) @ (1 << np.arange(width, dtype=np.int64))
            else:  # a dictionary of one text
                values = np.zeros(min(8 * (head >> 1), count - got), np.int64)
            at += size
        else:
            size = -(-width // 8)
            values = np.full(min(head >> 1, count - got), int.from_bytes(data[at : at + size], "little"), np.int64)
            if at + size > len(data) or not len(values):
                raise DamagedPage("a run that is cut off")
            at += size
        parts.append(values[: count - got])
        got += len(parts[-1])
    return np.concatenate(parts)
