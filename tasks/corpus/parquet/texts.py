"""Texts recognized by their content: lengths, digests, and the texts of a holdout."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

DIGEST = 16
"""Bytes of a text's BLAKE2b digest: with 128 bits, 52 million documents collide by chance once in 10^23 pools."""


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets, int64 (n + 1,), and the bytes that they point into, uint8."""
    _, offsets, data = texts.buffers()
    first = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return first, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def lengths(texts: pa.LargeStringArray) -> np.ndarray:
    """UTF-8 bytes of each text, int64 (n,); 0 for null."""
    offsets, _ = buffers(texts)
    sizes = np.diff(offsets)
    return np.where(texts.is_valid().to_numpy(zero_copy_only=False), sizes, 0) if texts.null_count else sizes


def digest(data: np.ndarray, start: int, end: int) -> bytes:
    """The BLAKE2b digest of one text."""
    return hashlib.blake2b(data[start:end], digest_size=DIGEST).digest()


def digests(texts: pa.LargeStringArray) -> np.ndarray:
    """The digest of each text, (n,) of 16 bytes."""
    offsets, data = buffers(texts)
    joined = b"".join(digest(data, offsets[i], offsets[i + 1]) for i in range(len(texts)))
    return np.frombuffer(joined, np.dtype((np.void, DIGEST)))


def signatures(texts: pa.LargeStringArray) -> np.ndarray:
    """A cheap 64-bit hash of each text, uint64 (n,), from its length and its first and last 8 bytes."""
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
    """Texts to recognize exactly: a lookup among sorted signatures first, then digests to be sure."""

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
