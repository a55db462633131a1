"""Passages of a text as numbers: a hash of every 13 consecutive words, whatever their case and punctuation.

13 words as in the contamination studies of GPT-3 (Brown et al. 2020, appendix C). A word is a run of letters and digits; bytes above 127
count as letters, so a script without blanks has few words and is hardly searched. Everything is computed on arrays, of a block of the
texts at hand that a core's cache holds: memory that is touched for the first time costs more than all of the arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from tasks.corpus.parquet.texts import buffers

WORDS = 13
"""Of a passage."""

BLOCK = 1 << 18
"""Bytes of text at a time."""

ENOUGH = 8 * WORDS
"""Words that a block has, or it is made larger: those at its end are in the next block, too."""

LETTER = ord("a")
"""The least byte of a letter, once words are in lower case: digits are below."""

WIDTH = 8
"""Bytes of a word that count, beside its length."""

MASKS = np.array([*((1 << 8 * size) - 1 for size in range(WIDTH)), 2**64 - 1], np.uint64)
MIX, MIX_TOO, BASE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), 0xD1342543DE82EF95


@dataclass(frozen=True)
class Grams:
    """The passages of a block of texts in order, those that begin in one text and end in another included."""

    hashes: np.ndarray
    """uint64 (n,)"""
    first: np.ndarray
    """The byte, counted from the first text's first, where each of the words begins, int64 (n + WORDS - 1,)."""
    words: np.ndarray
    """The hash of each word, uint64 (n + WORDS - 1,)."""
    spelled: np.ndarray
    """Of each word the bytes that count, its first one lowest, uint64 (n + WORDS - 1,)."""
    bounds: np.ndarray
    """Where texts begin and the last one ends, int64 (texts + 1,)."""

    def telling(self) -> np.ndarray:
        """Whether a word is no number and no single letter, bool (n + WORDS - 1,)."""
        return (self.spelled > 255) & (self.spelled.astype(np.uint8) >= LETTER)

    def rows(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the passages `at` some positions, those that lie in one text, as positions in `at`, and the number of that text."""
        begins = np.searchsorted(self.bounds, self.first[at], side="right") - 1
        inside = np.flatnonzero(self.first[at + WORDS - 1] < self.bounds[begins + 1])
        return inside, begins[inside]


def grams(texts: pa.LargeStringArray) -> Iterator[Grams]:
    """The passages of texts, by block. Where one ends and the next begins amid letters, both words count as one, which is found nowhere
    else."""
    offsets, data = buffers(texts)
    data, bounds = data[offsets[0] : offsets[-1]], offsets - offsets[0]
    begin, size = 0, BLOCK
    while begin < len(data):
        block = data[begin : begin + size]
        last = begin + size >= len(data)
        read, first, sizes = _words(block, last)
        if not last and len(first) < ENOUGH:
            size *= 2
            continue
        spelled = read[first]
        spelled &= MASKS.take(sizes, mode="clip")
        first += begin
        words = _mixed(spelled, sizes)
        yield Grams(_rolled(words), first, words, spelled, bounds)
        if last:
            return
        begin = int(first[1 - WORDS])


def _words(block: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 8 bytes from each byte on, in lower case, where each word begins, and its bytes. A word that the block cuts is none, unless it
    is the `last` one."""
    size = len(block)
    lowered = np.empty(size + WIDTH, np.uint8)
    lowered[size:] = 0
    letter = np.zeros(size + 2, bool)
    inside, text = letter[1:-1], lowered[:size]
    ascii = block < 128
    space = np.multiply(
        ascii.view(np.uint8), 32
    )  # by a comparison for each byte: a table of bytes takes twice the time
    np.bitwise_or(block, space, out=text)
    np.less(np.subtract(text, ord("a"), out=space), 26, out=inside)
    inside |= np.less(np.subtract(block, ord("0"), out=space), 10)
    inside |= np.logical_not(ascii, out=ascii)
    edges = np.flatnonzero(letter[1:] != letter[:-1])
    first, ends = edges[::2], edges[1::2]
    if not last and len(ends) and ends[-1] == size:
        first, ends = first[:-1], ends[:-1]
    return np.ndarray((size + 1,), np.dtype("<u8"), lowered, strides=(1,)), first, ends - first


def _mixed(spelled: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A hash of each word, uint64."""
    words = np.left_shift(sizes.view(np.uint64), np.uint64(56))
    words ^= spelled
    words *= MIX
    words ^= np.right_shift(words, np.uint64(29))
    words *= MIX_TOO
    return words


def _rolled(words: np.ndarray) -> np.ndarray:
    """A hash of each WORDS consecutive ones, uint64: sums of words times rising powers, taken from running sums, mod 2^64."""
    count = len(words) - WORDS + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    up, down = _powers(len(words))
    sums = np.empty(len(words) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(words * up, out=sums[1:])
    hashes = sums[WORDS:] - sums[:-WORDS]
    hashes *= down[:count]
    hashes ^= hashes >> np.uint64(31)
    hashes *= MIX
    return hashes


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE to the powers 0, 1, ... and to 0, -1, ..., uint64 (count,) each."""
    up, down = _table(1 << max(14, (count - 1).bit_length()))
    return up[:count], down[:count]


@cache
def _table(count: int) -> tuple[np.ndarray, np.ndarray]:
    def rising(base: int) -> np.ndarray:
        found = np.ones(count, np.uint64)
        known = 1
        while known < count:
            found[known : 2 * known] = found[:known] * np.uint64(pow(base, known, 2**64))
            known *= 2
        return found

    return rising(BASE), rising(pow(BASE, -1, 2**64))
