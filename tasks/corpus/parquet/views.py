"""Texts reordered without being copied, and then copied once, into the order in which they are wanted.

The layout is that of Arrow's binary views (https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout):
16 bytes per text (length, first four bytes, buffer, offset); texts of up to 12 bytes lie in the view itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

INLINE = 12
WINDOW = 1 << 30
"""Offsets have 31 bits: larger memory is seen as overlapping buffers that begin this many bytes apart."""


@dataclass(frozen=True)
class Views:
    """`table` holds one view per text, int32 (n, 4); `buffers` is the memory that they point into."""

    table: np.ndarray
    buffers: tuple[pa.Buffer, ...]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: np.ndarray | slice) -> "Views":
        """Some of the texts, in any order, without copying."""
        return Views(self.table[rows], self.buffers)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each text, int32 (n,)."""
        return self.table[:, 0]

    @classmethod
    def over(cls, data: pa.Buffer, starts: np.ndarray, sizes: np.ndarray) -> "Views":
        """Texts of `sizes` bytes from `starts` on in `data`; both (n,) of integers. Raises ValueError for one of 1 GiB or more."""
        if len(sizes) and int(sizes.max()) >= WINDOW:
            raise ValueError(f"a text of {int(sizes.max()):,} bytes, of which less than {WINDOW:,} can be used")
        table = np.empty((len(starts), 4), np.int32)
        table[:, 0] = sizes
        table[:, 2] = starts // WINDOW
        table[:, 3] = starts % WINDOW
        source = np.frombuffer(data, np.uint8)
        short = sizes <= INLINE
        if short.any():
            within = np.arange(INLINE)
            place = starts[short][:, None] + within
            inside = within < sizes[short][:, None]
            table[short, 1:] = np.where(inside, source[np.where(inside, place, 0)] if len(source) else 0, 0).astype(np.uint8).view(np.int32)  # fmt: skip
        if not short.all():
            long = ~short
            words = np.ndarray((len(source) - 3,), np.dtype("<i4"), source.data, strides=(1,))
            table[long, 1] = words[starts[long]]
        count = max(1, -(-data.size // WINDOW))
        return cls(
            table, tuple(data.slice(i * WINDOW, min(2 * WINDOW - 1, data.size - i * WINDOW)) for i in range(count))
        )

    @classmethod
    def of(cls, texts: pa.Array) -> "Views":
        """The texts of an array of large strings or binaries; a null is an empty text."""
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        sizes = np.diff(bounds)
        if texts.null_count:
            sizes = np.where(texts.is_valid().to_numpy(zero_copy_only=False), sizes, 0)
        return cls.over(data if data is not None else pa.py_buffer(b""), bounds[:-1], sizes)

    @classmethod
    def concat(cls, parts: Iterable["Views"]) -> "Views":
        """One after another."""
        tables: list[np.ndarray] = [np.zeros((0, 4), np.int32)]
        buffers: list[pa.Buffer] = []
        for part in parts:
            table = part.table
            if buffers:
                table = table.copy()
                table[table[:, 0] > INLINE, 2] += len(buffers)
            tables.append(table)
            buffers += part.buffers
        return cls(np.concatenate(tables), tuple(buffers))

    def array(self, kind: pa.DataType) -> pa.Array:
        """An Arrow array of string views or binary views, without copying."""
        views = pa.py_buffer(np.ascontiguousarray(self.table))
        return pa.Array.from_buffers(kind, len(self), [None, views, *self.buffers])

    def gather(self) -> pa.LargeStringArray:
        """A contiguous copy, in order. The texts must be UTF-8."""
        return self.array(pa.string_view()).cast(pa.large_string())

    def cut(self, size: int) -> Iterator["Views"]:
        """The texts in order, in pieces that each end with the text that brings them to `size` bytes."""
        ends = np.cumsum(self.sizes, dtype=np.int64)
        first = 0
        while first < len(self):
            filled = size + (int(ends[first - 1]) if first else 0)
            last = int(np.searchsorted(ends, filled)) + 1
            yield self[first:last]
            first = last

    def bytes(self) -> list[bytes]:
        """A copy of each text."""
        return self.array(pa.binary_view()).to_pylist()

    def invalid(self) -> int | None:
        """Position of the first text that is not UTF-8, or None."""
        try:
            self.array(pa.string_view()).validate(full=True)
            return None
        except pa.ArrowInvalid:
            return next(i for i, text in enumerate(self.bytes()) if text.decode(errors="replace").encode() != text)
