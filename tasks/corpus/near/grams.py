"""Passages of a text as numbers: a hash of every 13 consecutive words, whatever their case and punctuation.

13 words as in the contamination studies of GPT-3 (Brown et al. 2020, appendix C). A word is a run of letters and digits; bytes above 127
count as letters, so a script without blanks has few words and is hardly searched. Everything is computed on arrays, for the whole text
that is at hand at once: 4 MiB take some 10 ms.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from tasks.corpus.parquet.texts import buffers

WORDS = 13
"""Of a passage."""

LETTER = ord("a")
"""The least byte of a letter, once words are in lower case: digits are below."""

WIDTH = 8
"""Bytes of a word that count, beside its length."""

LOWER = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or 48 <= byte <= 57 or byte >= 128 else 0
    for byte in range(256)
)
MASKS = np.array([*((1 << 8 * size) - 1 for size in range(WIDTH)), 2**64 - 1], np.uint64)
MIX, MIX_TOO, BASE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), 0xD1342543DE82EF95


@dataclass(frozen=True)
class Grams:
    """The passages of some texts in order, those that begin in one text and end in another included."""

    hashes: np.ndarray
    """uint64 (n,)"""
    first: np.ndarray
    """The byte, counted from the first text's first, where each of the words begins, int64 (n + WORDS - 1,)."""
    words: np.ndarray
    """The hash of each word, uint64 (n + WORDS - 1,)."""
    telling: np.ndarray
    """Whether a word is no number and no single letter, bool (n + WORDS - 1,)."""
    bounds: np.ndarray
    """Where texts begin and the last one ends, int64 (texts + 1,)."""

    def rows(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the passages `at` some positions, those that lie in one text, as positions in `at`, and the number of that text."""
        begins = np.searchsorted(self.bounds, self.first[at], side="right") - 1
        inside = np.flatnonzero(self.first[at + WORDS - 1] < self.bounds[begins + 1])
        return inside, begins[inside]


def grams(texts: pa.LargeStringArray) -> Grams:
    """The passages of texts. Where one ends and the next begins amid letters, both words count as one, which is found nowhere else."""
    offsets, data = buffers(texts)
    bounds = offsets - offsets[0]
    size = int(bounds[-1])
    lowered = data[offsets[0] : offsets[-1]].tobytes().translate(LOWER) + bytes(WIDTH)
    letter = np.frombuffer(lowered, np.uint8)[: size + 1] != 0
    edges = np.flatnonzero(letter[1:] != letter[:-1]) + 1
    if letter[0]:
        edges = np.concatenate([[0], edges])
    first, sizes = edges[::2], edges[1::2] - edges[::2]
    read = np.ndarray((size + 1,), np.dtype("<u8"), lowered, strides=(1,))
    words = read[first] & MASKS[np.minimum(sizes, WIDTH)]
    words ^= sizes.astype(np.uint64) << np.uint64(56)
    words *= MIX
    words ^= words >> np.uint64(29)
    words *= MIX_TOO
    telling = (sizes > 1) & (np.frombuffer(lowered, np.uint8)[first] >= LETTER)
    return Grams(_rolled(words), first, words, telling, bounds)


def _rolled(words: np.ndarray) -> np.ndarray:
    """A hash of each WORDS consecutive ones, uint64: sums of words times rising powers, taken from running sums, mod 2^64."""
    count = len(words) - WORDS + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    up, down = _powers(len(words))
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(words * up, out=sums[1:])
    hashes = sums[WORDS:] - sums[:-WORDS]
    hashes *= down[:count]
    hashes ^= hashes >> np.uint64(31)
    hashes *= MIX
    return hashes


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE to the powers 0, 1, ... and to 0, -1, ..., uint64 (count,) each."""
    up, down = _table(1 << max(16, (count - 1).bit_length()))
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
