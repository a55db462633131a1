"""The passages of a few documents, those that are held out, to be found in many others.

A document is a near copy of a held-out one if it has

- a passage of it, 13 words in a row, that is no boilerplate; or
- `share` of all its passages, boilerplate included.

Boilerplate is what more than `COMMON` of the held-out documents have, such as licence headers and menus, and what repeats few
words. A holdout is a sample of its pool: a text that one document in 5,000 has is in four of 20,000 held-out ones. That rule looks at
no arm, so arms of one pool are searched alike.

Of the passages, the part whose hash is small is looked for (`SAMPLED`), in held-out documents and arms alike: how often that
misses what, and what MinHash misses, `python -m benchmarks.data near` says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.corpus.near.grams import WORDS, Grams, grams
from tasks.corpus.scratch import Scratch
from tasks.store.artifact import Work

SAMPLED = 1
"""One passage in 2 to this power."""

COMMON = 2
"""Documents that may have a passage before it is boilerplate."""

OWNERS = 8
"""Documents that boilerplate is looked for in, those with the fewest passages."""

DIFFERENT = 8
"""Words of a passage that must differ."""

SPARSE = 5
"""Passages that pass the first look by chance: one in more than 2 to this power."""

FILES = ("grams", "first", "owners", "common", "sizes", "filter")


@dataclass(frozen=True)
class Found:
    """Documents with what they share with held-out ones, one row a pair, (n,) each."""

    row: np.ndarray
    """Number of the document among those that were searched, int64."""
    document: np.ndarray
    """Number of the held-out one, int64."""
    share: np.ndarray
    """Part of the held-out one's passages that the other has, float32."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, at: np.ndarray) -> "Found":
        """Some of the pairs."""
        return Found(self.row[at], self.document[at], self.share[at])

    def after(self, rows: int) -> "Found":
        """The same with so many documents before them."""
        return Found(self.row + rows, self.document, self.share)

    @classmethod
    def concat(cls, parts: Sequence["Found"]) -> "Found":
        """One after another; rows stay as they are numbered."""
        none = Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        columns = [(part.row, part.document, part.share) for part in (none, *parts)]
        return cls(*map(np.concatenate, zip(*columns, strict=True)))


@dataclass(frozen=True)
class Passages:
    """What to look for, by hash; `common`: whether it is boilerplate."""

    grams: np.ndarray
    """Rising, uint64 (n,)."""
    first: np.ndarray
    """Where each one's owners begin and the last one's end, int64 (n + 1,)."""
    owners: np.ndarray
    """Numbers of documents, int32."""
    common: np.ndarray
    """bool (n,)"""
    sizes: np.ndarray
    """Passages of each document, int64 (documents,)."""
    share: float
    """From which part of a held-out document's passages on another is a near copy."""
    filter: np.ndarray = field(repr=False)
    """Bits at the places of hashes, a power of two of them."""

    @classmethod
    def of(cls, parts: Iterable[pa.LargeStringArray], share: float) -> "Passages":
        """The passages of held-out texts, numbered in their order."""
        hashes, owners, documents = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
        for texts in parts:
            apart = pc.binary_join_element_wise(texts, pa.scalar("", texts.type), pa.scalar("\n", texts.type))
            for found in grams(apart):
                at = sampled(found)
                inside, rows = found.rows(at)
                at = at[inside]
                varied = _varied(found, at)
                hashes.append(found.hashes[at[varied]])
                owners.append(documents + rows[varied])
            documents += len(texts)
        return cls._joined(np.concatenate(hashes), np.concatenate(owners), documents, share)

    @classmethod
    def _joined(cls, hashes: np.ndarray, owners: np.ndarray, documents: int, share: float) -> "Passages":
        hashes, owners = _by_hash(hashes, owners)
        new = np.ones(len(hashes), bool)  # a document counts once for each passage, however often it repeats it
        new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        hashes, owners = hashes[new], owners[new]
        sizes = np.bincount(owners, minlength=documents)
        first = _starts(hashes)
        unique, counts = hashes[first], np.diff(first, append=len(hashes))
        kept = np.ones(len(owners), bool)
        for at in np.flatnonzero(counts > OWNERS):
            several = slice(first[at], first[at] + counts[at])
            kept[several][np.argsort(sizes[owners[several]], kind="stable")[OWNERS:]] = False
        ends = np.cumsum(np.minimum(counts, OWNERS))
        places = np.concatenate([[0], ends])
        return cls(unique, places, owners[kept].astype(np.int32), counts > COMMON, sizes, share, _filter(unique))

    @property
    def unsearchable(self) -> int:
        """Documents without a passage, shorter than 13 words most of them: nothing is found to be near them."""
        return int((self.sizes == 0).sum())

    @property
    def _bits(self) -> int:
        """Of the number of a passage and of a document."""
        return max(len(self.grams), len(self.sizes)).bit_length()

    def find(self, texts: pa.LargeStringArray) -> Found:
        """The near copies among some texts."""
        found = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for searched in grams(texts) if len(self.grams) else ():
            at = sampled(searched)
            at = at[np.flatnonzero(_passing(self.filter, searched.hashes[at]))]
            inside, rows = searched.rows(at)
            found[0].append(searched.hashes[at[inside]])
            found[1].append(rows)
        hashes, rows = map(np.concatenate, found)
        order = np.argsort(hashes)  # sorted keys are looked up in one pass through the memory
        hashes, rows = hashes[order], rows[order]
        place = np.searchsorted(self.grams, hashes)
        there = np.flatnonzero(self.grams[np.minimum(place, len(self.grams) - 1)] == hashes) if len(hashes) else place
        return self._pairs(rows[there], place[there])

    def _pairs(self, rows: np.ndarray, place: np.ndarray) -> Found:
        """What is near, given the rows (n,) that have the passages at `place` (n,)."""
        once = np.sort(rows << self._bits | place)  # whole numbers are sorted much faster than rows of several
        once = once[_starts(once)]
        rows, place = once >> self._bits, once & ((1 << self._bits) - 1)
        counts = self.first[place + 1] - self.first[place]
        each = np.repeat(np.arange(len(place)), counts)
        within = np.arange(len(each)) - (np.cumsum(counts) - counts)[each]
        owner = self.owners[self.first[place[each]] + within]
        shared = np.sort((rows[each] << self._bits | owner) << 1 | self.common[place[each]])
        start = _starts(shared >> 1)
        row, owner = shared[start] >> self._bits + 1, (shared[start] >> 1) & ((1 << self._bits) - 1)
        share = np.diff(start, append=len(shared)) / self.sizes[owner]
        near = (shared[start] & 1 == 0) | (share >= self.share)  # what is no boilerplate comes first
        return Found(row[near], owner[near], share[near].astype(np.float32))

    def write(self, work: Work) -> None:
        """Add the files of an artifact in the making."""
        for name in FILES:
            with work.temporary(f"{name}.npy").open("wb") as file:
                np.save(file, getattr(self, name))
            work.finish(f"{name}.npy", len(getattr(self, name)))

    @classmethod
    def open(cls, place: Scratch, share: float) -> "Passages":
        """What `write` wrote: mapped from a folder, or read from a store."""

        def read(name: str) -> np.ndarray:
            if place.url is None:
                return np.load(place.folder / f"{name}.npy", mmap_mode="r")
            return np.load(BytesIO(place.read(f"{name}.npy", 0, place.sizes()[f"{name}.npy"])))

        found = {name: read(name) for name in FILES}
        return cls(**found, share=share)


def sampled(found: Grams) -> np.ndarray:
    """Positions of the passages that are looked for."""
    return np.flatnonzero(found.hashes <= np.uint64(2 ** (64 - SAMPLED) - 1))


def _varied(found: Grams, at: np.ndarray) -> np.ndarray:
    """Which of the passages `at` some positions have enough different words that tell something, as positions in `at`."""
    back = np.full(len(found.words), 255, np.uint8)  # how many words ago the same one was
    for words in range(min(WORDS, len(back)) - 1, 0, -1):
        np.copyto(back[words:], words, where=found.words[words:] == found.words[:-words])
    back[~found.telling()] = 0
    different = np.zeros(len(found.hashes), np.uint8)
    for place in range(WORDS):
        different += back[place : place + len(different)] > place  # the same one is before the passage
    return np.flatnonzero(different[at] >= DIFFERENT)


def _by_hash(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by rising hash, of equal ones by rising owner. A stable sort of all takes five times as long."""
    order = np.argsort(hashes)
    hashes, owners = hashes[order], owners[order]
    same = hashes[1:] == hashes[:-1]
    several = np.zeros(len(hashes), bool)
    several[1:] |= same
    several[:-1] |= same
    several = np.flatnonzero(several)
    owners[several] = owners[several][np.lexsort((owners[several], hashes[several]))]
    return hashes, owners


def _starts(values: np.ndarray) -> np.ndarray:
    """Where equal ones begin among sorted values, int64."""
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    return np.flatnonzero(new)


def _filter(hashes: np.ndarray) -> np.ndarray:
    """Bits for a first look, packed, uint8."""
    bits = max(16, len(hashes).bit_length() + SPARSE)
    place = np.sort(hashes & np.uint64((1 << bits) - 1))
    found = np.zeros(1 << (bits - 3), np.uint8)
    if len(place):
        byte = place >> np.uint64(3)
        first = _starts(byte)
        found[byte[first]] = np.bitwise_or.reduceat(np.uint8(1) << (place & np.uint64(7)).astype(np.uint8), first)
    return found


def _passing(packed: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Whether the bit of each hash is set, bool."""
    place = hashes & np.uint64(8 * len(packed) - 1)
    bits = packed[(place >> np.uint64(3)).view(np.int64)]
    bits >>= place.astype(np.uint8) & np.uint8(7)
    bits &= np.uint8(1)
    return bits.view(bool)  # of which a search for those that are not 0 is faster
