"""From documents to rows of `sequence length + 1` tokens, in two ways. Nothing is padded, and every document starts with BOS.

`SplitPacker`  documents one after another; one that does not fit continues in the next row, which repeats the last token of the row
               before it, so that each token is predicted exactly once. Only the last, incomplete row is lost.
`CropPacker`   best fit, as nanochat does it. Every row starts with BOS. From a buffer of at least BUFFER documents, refilled BATCH
               at a time, the longest that fits what is left of the row is taken, the earliest of several as long; when none
               fits, the shortest is cropped to fill the row and its rest is lost.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

BUFFER = 1_000
BATCH = 128
STEP = 4 << 20
"""Tokens that are split at a time: some arrays have 8 bytes for each."""

_AGE_BITS = 40
_AGES = (1 << _AGE_BITS) - 1


class Packed(NamedTuple):
    """Full rows, and what they hold."""

    rows: np.ndarray
    """uint16 (n, sequence length + 1)."""
    pieces: np.ndarray
    """int64 (p, 4): row among these, document by its place in the arm, its tokens in that row, 1 where the document begins there."""


class CropPacker:
    """Packs documents, in the order in which they are pushed, into rows of `width` = sequence length + 1 tokens.

    Counters, all in tokens and BOS included but for `documents` and `dropped_documents`:
    tokens = rows * width + cropped_tokens + dropped_tokens + what the buffer and the open row still hold.
    """

    def __init__(self, sequence_length: int, bos: int, buffer: int = BUFFER):
        self.width = sequence_length + 1
        self.bos = bos
        self.buffer = buffer
        self.documents = self.tokens = self.rows = 0
        self.cropped_tokens = self.dropped_tokens = self.dropped_documents = 0
        # The buffer, ordered by (length, youngest first), so that the document before the first one too long is the
        # earliest of the longest that fit. A key holds the whole length; of the tokens only those that a row can take.
        self._keys: list[int] = []
        self._buffered: list[np.ndarray] = []
        self._open: list[np.ndarray] = []
        self._opened: list[int] = []
        self._left = self.width

    def push(self, ids: np.ndarray, offsets: np.ndarray) -> Packed:
        """Add documents, without BOS, as an `Encode` gives them; returns the rows that got full."""
        full: list[tuple[list[np.ndarray], list[int]]] = []
        bounds = offsets.tolist()
        for batch in range(0, len(bounds) - 1, BATCH):
            for start, end in zip(bounds[batch : batch + BATCH], bounds[batch + 1 : batch + BATCH + 1], strict=False):
                self._add(ids, start, end)
            while len(self._keys) >= self.buffer:
                self._place(full)
        return self._packed(full)

    def flush(self) -> Packed:
        """The rows that the rest of the buffer fills; what remains of it, less than one row, is counted as dropped."""
        full: list[tuple[list[np.ndarray], list[int]]] = []
        while self._keys:
            self._place(full)
        self.dropped_documents += len(self._open)
        self.dropped_tokens += self.width - self._left
        self._open, self._opened, self._left = [], [], self.width
        return self._packed(full)

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to go on, as arrays."""
        documents = [*self._buffered, *self._open]
        return {
            "counters": np.array([getattr(self, name) for name in _COUNTERS], np.int64),
            "buffered": np.array([divmod(key, _AGES + 1) for key in self._keys], np.int64).reshape(-1, 2),
            "opened": np.array(self._opened, np.int64),
            "lengths": np.array([len(document) for document in documents], np.int64),
            "ids": np.concatenate([*documents, np.empty(0, np.uint16)]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become the packer that gave `state`, which was made with the same parameters."""
        for name, value in zip(_COUNTERS, state["counters"].tolist(), strict=True):
            setattr(self, name, value)
        self._keys = [length << _AGE_BITS | age for length, age in state["buffered"].tolist()]
        self._opened = state["opened"].tolist()
        ends = np.cumsum(state["lengths"])
        documents = [state["ids"][end - length : end] for end, length in zip(ends, state["lengths"], strict=True)]
        self._buffered, self._open = documents[: len(self._keys)], documents[len(self._keys) :]
        self._left = self.width - sum(map(len, self._open))

    def _add(self, ids: np.ndarray, start: int, end: int) -> None:
        length = end - start + 1
        document = np.empty(min(length, self.width), np.uint16)
        document[0] = self.bos
        document[1:] = ids[start : start + len(document) - 1]
        key = length << _AGE_BITS | (_AGES - self.documents)
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self._buffered.insert(place, document)
        self.documents += 1
        self.tokens += length

    def _place(self, full: list[tuple[list[np.ndarray], list[int]]]) -> None:
        keys = self._keys
        place = bisect_left(keys, (self._left + 1) << _AGE_BITS) - 1
        fits = place >= 0
        if not fits:
            shortest = keys[0] >> _AGE_BITS
            place = bisect_left(keys, (shortest + 1) << _AGE_BITS) - 1
            self.cropped_tokens += shortest - self._left
        self._opened.append(_AGES - (keys.pop(place) & _AGES))
        document = self._buffered.pop(place)
        self._open.append(document if fits else document[: self._left])
        self._left -= len(self._open[-1])
        if not self._left:
            full.append((self._open, self._opened))
            self._open, self._opened, self._left = [], [], self.width
            self.rows += 1

    def _packed(self, full: Sequence[tuple[list[np.ndarray], list[int]]]) -> Packed:
        tokens = [piece for row, _ in full for piece in row]
        rows = np.concatenate([*tokens, np.empty(0, np.uint16)]).reshape(len(full), self.width)
        pieces = [
            (number, document, len(piece), 1)
            for number, (row, documents) in enumerate(full)
            for piece, document in zip(row, documents, strict=True)
        ]
        return Packed(rows, np.array(pieces, np.int64).reshape(-1, 4))


class SplitPacker:
    """The same interface for documents that continue in the next row: nothing is cropped.

    tokens = rows * sequence length + dropped_tokens + what waits for the next row; the very first token is only ever read.
    """

    def __init__(self, sequence_length: int, bos: int):
        self.width = sequence_length + 1
        self.bos = bos
        self.documents = self.tokens = self.rows = 0
        self.cropped_tokens = self.dropped_tokens = self.dropped_documents = 0
        self._waiting = np.empty(0, np.uint16)
        """Tokens that are not in a full row yet, behind the last one that is."""
        self._numbers = np.empty(0, np.int64)
        """The document of each."""

    def push(self, ids: np.ndarray, offsets: np.ndarray) -> Packed:
        """Add documents, without BOS, as an `Encode` gives them; returns the rows that got full."""
        bounds = offsets - offsets[0]
        stream = np.insert(ids[offsets[0] : offsets[-1]].astype(np.uint16), bounds[:-1], self.bos)
        numbers = np.arange(self.documents, self.documents + len(bounds) - 1)
        bounds = bounds + np.arange(len(bounds))
        parts = []
        for start in range(0, len(stream), STEP):  # a few documents, or a part of a long one
            self._waiting = np.concatenate([self._waiting, stream[start : start + STEP]])
            lengths = np.diff(np.clip(bounds, start, start + STEP))
            self._numbers = np.concatenate([self._numbers, np.repeat(numbers, lengths)])
            parts.append(self._cut())
        self.documents += len(numbers)
        self.tokens += len(stream)
        return parts[0] if len(parts) == 1 else _joined(parts, self.width)

    def flush(self) -> Packed:
        """No rows: what waits is less than one, and counted as dropped."""
        left = len(self._waiting) - (1 if self.rows else 0)
        self.dropped_tokens += max(0, left)
        self.dropped_documents += int((self._waiting[1 if self.rows else 0 :] == self.bos).sum())
        self._waiting, self._numbers = self._waiting[:0], self._numbers[:0]
        return self._cut()

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to go on, as arrays."""
        counters = np.array([getattr(self, name) for name in _COUNTERS], np.int64)
        return {"counters": counters, "ids": self._waiting, "numbers": self._numbers}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become the packer that gave `state`, which was made with the same parameters."""
        for name, value in zip(_COUNTERS, state["counters"].tolist(), strict=True):
            setattr(self, name, value)
        self._waiting, self._numbers = state["ids"], state["numbers"]

    def _cut(self) -> Packed:
        """The full rows of what waits; each begins with the last token of the row before it."""
        length = self.width - 1
        count = max(0, len(self._waiting) - 1) // length
        used = count * length
        rows = np.empty((count, self.width), np.uint16)
        rows[:, :-1] = self._waiting[:used].reshape(count, length)
        rows[:, -1] = self._waiting[length : used + 1 : length]
        pieces = self._pieces(self._numbers[: used + 1], count) if count else np.empty((0, 4), np.int64)
        self._waiting, self._numbers = self._waiting[used:], self._numbers[used:]
        self.rows += count
        return Packed(rows, pieces)

    def _pieces(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """A run of one document in one row is a piece. A row's tokens are those it predicts: all but its first."""
        predicted = numbers[1:]
        row = np.repeat(np.arange(count), self.width - 1)
        begins = np.flatnonzero(np.diff(predicted, prepend=-1) | np.diff(row, prepend=-1))
        lengths = np.diff(begins, append=len(predicted))
        fresh = predicted[begins] != numbers[begins]  # the token before belongs to another document
        if self.rows == 0:
            fresh[0] = True
        return np.stack([row[begins], predicted[begins], lengths, fresh.astype(np.int64)], axis=1)


def _joined(parts: Sequence[Packed], width: int) -> Packed:
    """One after another."""
    first, pieces = 0, [np.empty((0, 4), np.int64)]
    for part in parts:
        pieces.append(part.pieces + np.array([first, 0, 0, 0]))
        first += len(part.rows)
    rows = np.concatenate([np.empty((0, width), np.uint16), *(part.rows for part in parts)])
    return Packed(rows, np.concatenate(pieces))


_COUNTERS = ("documents", "tokens", "rows", "cropped_tokens", "dropped_tokens", "dropped_documents")
