"""Best-fit packing, as nanochat does it: full rows that start with BOS, nothing padded.

A buffer holds at least BUFFER documents, refilled BATCH at a time. The longest document that fits what is left of the row
is taken, the earliest of several as long; when none fits, the shortest is cropped to fill the row and its rest is lost.
Every document starts with BOS, so every row does.
"""

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

BUFFER = 1_000
BATCH = 128

_AGE_BITS = 40
_AGES = (1 << _AGE_BITS) - 1


class Packer:
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
        self._left = self.width

    def push(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Add documents, without BOS, as an `Encode` gives them; returns the rows that got full, uint16 (n, width)."""
        full: list[list[np.ndarray]] = []
        bounds = offsets.tolist()
        for batch in range(0, len(bounds) - 1, BATCH):
            for start, end in zip(bounds[batch : batch + BATCH], bounds[batch + 1 : batch + BATCH + 1], strict=False):
                self._add(ids, start, end)
            while len(self._keys) >= self.buffer:
                self._place(full)
        return self._rows(full)

    def flush(self) -> np.ndarray:
        """The rows that the rest of the buffer fills; what remains of it, less than one row, is counted as dropped."""
        full: list[list[np.ndarray]] = []
        while self._keys:
            self._place(full)
        self.dropped_documents += len(self._open)
        self.dropped_tokens += self.width - self._left
        self._open, self._left = [], self.width
        return self._rows(full)

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to go on, as arrays."""
        documents = [*self._buffered, *self._open]
        return {
            "counters": np.array([getattr(self, name) for name in _COUNTERS], np.int64),
            "keys": np.array(self._keys, np.int64),
            "lengths": np.array([len(document) for document in documents], np.int64),
            "ids": np.concatenate([*documents, np.empty(0, np.uint16)]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become the packer that gave `state`, which was made with the same parameters."""
        for name, value in zip(_COUNTERS, state["counters"].tolist(), strict=True):
            setattr(self, name, value)
        self._keys = state["keys"].tolist()
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

    def _place(self, full: list[list[np.ndarray]]) -> None:
        keys = self._keys
        place = bisect_left(keys, (self._left + 1) << _AGE_BITS) - 1
        if place >= 0:
            del keys[place]
            document = self._buffered.pop(place)
        else:
            shortest = keys[0] >> _AGE_BITS
            place = bisect_left(keys, (shortest + 1) << _AGE_BITS) - 1
            del keys[place]
            document = self._buffered.pop(place)[: self._left]
            self.cropped_tokens += shortest - self._left
        self._open.append(document)
        self._left -= len(document)
        if not self._left:
            full.append(self._open)
            self._open, self._left = [], self.width
            self.rows += 1

    def _rows(self, full: list[list[np.ndarray]]) -> np.ndarray:
        pieces = [piece for row in full for piece in row]
        return np.concatenate([*pieces, np.empty(0, np.uint16)]).reshape(len(full), self.width)


_COUNTERS = ("documents", "tokens", "rows", "cropped_tokens", "dropped_tokens", "dropped_documents")
