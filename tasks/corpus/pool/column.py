"""A column of the index: one value per document, in files that are memory-mapped.

    number  values.npy  int32 multiples of 1/UNITS if every value is one exactly, -1 for none; otherwise float32 where the source has
                        it, else float64; NaN for none. A value that is null, NaN or infinite is none. A float32 stands for the
                        multiple of 1/UNITS that it is nearest to of all float32: 3.3 is 3.3, not 3.2999999523.
    text    codes.npy   int32, -1 for null; texts.parquet: the text of each code
    ids     ids.npy     uint64, the first 8 bytes of the BLAKE2b digest of a value's text; 0 for null

Two of 52 million ids share 64 bits with a probability of 1 in 10,000, and one of them would have to be on the list.
"""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.disk import WRITE_BYTES, write_all
from tasks.corpus.heap import drop_pages
from tasks.expression import Kind
from tasks.store.artifact import Artifact, fingerprint

VALUES, CODES, TEXTS, IDS = "values.npy", "codes.npy", "texts.parquet", "ids.npy"
MOST_TEXTS = 1_000_000
"""Distinct texts of a column; what has more is an id or a text, no property to filter by."""
NOTHING = -1
UNITS = 10_000 * 63
"""Numbers of up to four decimals and means of up to ten whole numbers are multiples of 1/UNITS: half the bytes of a float64."""
MOST_MEANT = 1e9
"""From here on a float64 does not tell multiples of 1/UNITS apart."""
PART = 1 << 15
"""Values that are changed at a time: they stay in the cache."""


@dataclass(frozen=True)
class Wanted:
    """A column by its exact name: its values, or what recognizes them as ids; and which files may lack it."""

    name: str
    use: Literal["values", "ids"] = "values"
    may_lack: Literal["none", "some", "all"] = field(default="none", compare=False)

    @property
    def key(self) -> str:
        """A short name for files."""
        return fingerprint(self.name, self.use)


class Column:
    """A growing one-dimensional array on the disk. `np.load` reads the file once it is closed.

    The header comes first and holds the length. NumPy leaves room in it for any length, so it can be overwritten later
    (numpy.lib.format, GROWTH_AXIS_MAX_DIGITS). Of a column whose `length` is given, `sha256` is known once it is closed: the
    file need not be read for it.
    """

    def __init__(self, path: Path, kind: type[np.number], length: int | None = None):
        self._path, self._expected = path, length
        self.sha256: str | None = None
        self._begin(kind)

    def append(self, values: np.ndarray) -> None:
        """Append `values` (n,). Raises TypeError if they are not of the type of the column."""
        if values.dtype != self.kind:
            raise TypeError(f"{values.dtype} for a column of {self.kind}")
        data = memoryview(np.ascontiguousarray(values)).cast("B") if len(values) else b""
        for start in range(0, len(data), WRITE_BYTES):  # a part is hashed and written while it is in the cache
            part = data[start : start + WRITE_BYTES]
            if self._expected is not None:
                self._hash.update(part)
            write_all(self._file, part)
        self._length += len(values)

    def widen(self) -> None:
        """Change numbers that are there to float64."""
        self.close()
        before = np.load(self._path, mmap_mode="r")
        self._path.unlink()  # what is mapped stays readable
        self._begin(np.float64)
        for start in range(0, len(before), PART):
            self.append(widened(before[start : start + PART]))

    def close(self) -> int:
        """Finish the file; returns the number of values."""
        if self._length == self._expected:
            self.sha256 = self._hash.hexdigest()
        else:
            self._file.seek(0)
            self._file.write(self._header(self._length))
        self._file.close()
        return self._length

    def _begin(self, kind: type[np.number]) -> None:
        self._file = self._path.open("wb", buffering=0)
        self.kind = np.dtype(kind)
        self._length = 0
        header = self._header(self._expected or 0)
        self._hash = hashlib.sha256(header)
        self._file.write(header)

    def _header(self, length: int) -> bytes:
        kind = np.lib.format.dtype_to_descr(self.kind)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": (length,)})
        return header.getvalue()


@dataclass(frozen=True)
class StoredColumn:
    """A finished column of values as they are kept, mapped: numbers, or codes with their texts."""

    values: np.ndarray
    texts: pa.StringArray | None

    @classmethod
    def open(cls, column: Artifact) -> "StoredColumn":
        texts = column.path / TEXTS
        if not texts.exists():
            return cls(np.load(column.path / VALUES, mmap_mode="r"), None)
        words = pq.read_table(texts).column(0).combine_chunks()
        return cls(np.load(column.path / CODES, mmap_mode="r"), words)

    @property
    def kind(self) -> Kind:
        return "number" if self.texts is None else "text"

    def known(self, part: slice) -> np.ndarray:
        """Which documents of a slice have a value, bool."""
        return known(self.values[part])

    def numbers(self, part: slice = slice(None)) -> np.ndarray:
        """The numbers of a slice, float64, NaN where there is none."""
        return widened(self.values[part])

    @property
    def in_units(self) -> bool:
        """Whether it is of numbers that are kept as multiples of 1/UNITS."""
        return self.texts is None and self.values.dtype == np.int32

    def units(self, part: slice) -> np.ndarray:
        """The multiples of 1/UNITS of a slice of a column `in_units`, float64, NaN where there is none."""
        values = self.values[part]
        return np.where(known(values), values, np.nan)

    def read(self, part: slice) -> pa.Array:
        """The values of a slice: float64 or dictionary-encoded strings, null where there is none."""
        values = self.values[part]
        if self.texts is None:
            return pa.array(widened(values), from_pandas=not known(values).all())
        return pa.DictionaryArray.from_arrays(pa.array(values, mask=values == NOTHING), self.texts)

    def at(self, documents: np.ndarray) -> pa.Array:
        """The values of some documents, by their numbers: float64 or strings, null where there is none."""
        values = self.values[documents]
        if self.texts is None:
            return pa.array(widened(values), from_pandas=True)
        return self.texts.take(pa.array(values, mask=values == NOTHING)).cast(pa.string())

    def drop(self) -> None:
        """Give back the pages, if it is mapped."""
        if isinstance(self.values, np.memmap):
            drop_pages(self.values)


def known(values: np.ndarray) -> np.ndarray:
    """Which of the values, as a column keeps numbers and codes, are there, bool (n,)."""
    return ~np.isnan(values) if values.dtype.kind == "f" else values != NOTHING


def open_ids(column: Artifact) -> np.memmap:
    """A finished column of ids, mapped: uint64 (documents,)."""
    return np.load(column.path / IDS, mmap_mode="r")


def numbers(values: pa.ChunkedArray) -> np.ndarray:
    """Numbers or truth values as a column keeps them."""
    kind = pa.float32() if pa.types.is_float32(values.type) else pa.float64()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if values.type != kind:  # else a cast would copy them
        values = values.cast(kind, safe=False)
    found: np.ndarray = values.to_numpy()
    if (kept := _kept(found)) is not found:
        return kept  # none of them is infinite
    if (finite := np.isfinite(found)).all():
        return found
    return _kept(np.where(finite, found, np.array(np.nan, found.dtype)))


def _kept(values: np.ndarray) -> np.ndarray:
    """Floating-point `values` as multiples of 1/UNITS if all are; otherwise as they are."""
    wide = widened(values) if values.dtype == np.float32 else values
    found = narrowed(wide)
    return values if found is wide else found


def narrowed(values: np.ndarray) -> np.ndarray:
    """Multiples of 1/UNITS, int32 with NOTHING for NaN, if that is what all `values` are (float64); otherwise the values."""
    found, space = np.empty(len(values), np.int32), np.empty(PART)
    for start in range(0, len(values), PART):
        part, units = values[start : start + PART], found[start : start + PART]
        rounded = np.multiply(part, UNITS, out=space[: len(part)])
        np.rint(rounded, out=rounded)
        with np.errstate(invalid="ignore"):  # what int32 cannot hold is not the same afterwards
            units[:] = rounded
        same = np.divide(units, UNITS, out=rounded) == part
        same &= units != NOTHING
        if not same.all():
            missing = np.isnan(part)
            units[missing] = NOTHING
            if not (same | missing).all():
                return values
    return found


def widened(values: np.ndarray) -> np.ndarray:
    """Numbers in any form that a column keeps as float64, NaN for none."""
    if values.dtype == np.float32:
        wide = values.astype(np.float64)
        nearest = np.rint(wide * UNITS) / UNITS
        meant = (nearest.astype(np.float32) == values) & (np.abs(wide) < MOST_MEANT)
        return np.where(meant, nearest, wide)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    found: np.ndarray = values / UNITS
    if not (there := known(values)).all():
        found[~there] = np.nan
    return found


def encoded(values: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Texts as codes, int32, and the text of each code."""
    plain = values.cast(pa.string()).combine_chunks().dictionary_encode()
    return plain.indices.fill_null(NOTHING).to_numpy().astype(np.int32), plain.dictionary.to_pylist()


def recognized(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """What recognizes ids, uint64 (n,): numbers and their decimal text are the same id."""
    found = np.zeros(len(values), np.uint64)
    for place, value in enumerate(values.cast(pa.large_string()).to_pylist()):
        if value is not None:
            found[place] = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    return found


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts rather than numbers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
    )
