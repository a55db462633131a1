"""Nats per holdout document: every document exactly once, none seen by another.

A document is read as `<|bos|>` and its tokens; each of its tokens is predicted once. One longer than the sequence is cut
into windows: the first predicts T tokens, each further one starts with `<|bos|>` and a quarter of a sequence of context that
was scored before, then predicts what follows. Each window is a row of its own, padded on the right, where causal attention
cannot look.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tasks.engines.builtin.distributed import World
from tasks.errors import DamagedError
from tasks.records.layout import DOCUMENTS, STRATA, TOKENS
from tasks.records.scores import with_strata
from tasks.store.artifact import Artifact

PARTS = (1, 2, 4, 8)
"""Rows are padded to the whole, a half, a quarter or an eighth of the sequence, and batches to a fixed number of rows: a GPU
compiles kernels for four shapes, not for each batch."""
CHECK_EVERY = 8
"""Batches between two checks whether to stop."""
Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Inputs and targets (B, T) int64 -> nats (B, T) float32, 0 where the target is -1."""


@dataclass(frozen=True)
class Windows:
    """Rows to score, longest first: tokens [start, stop) of the document are predicted, after `context` others."""

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    context: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Positions that each row takes."""
        return self.stop - self.start + self.context

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class EncodedHoldout:
    """The encoded holdout: `tokens` uint16 of all documents back to back, `documents` one row each."""

    tokens: np.ndarray
    documents: pa.Table
    bos: int

    @classmethod
    def of(cls, evaluation: Artifact, strata: Artifact | None = None) -> "EncodedHoldout":
        """The content of a `pools/<pool>/evaluation` artifact, rated by `strata`; texts from elsewhere have none.

        Raises DamagedError when offsets leave the token file, or the strata are those of other documents.
        """
        documents = with_strata(pq.read_table(evaluation.path / DOCUMENTS), strata.path / STRATA if strata else None)
        path: Path = evaluation.path / TOKENS
        size = path.stat().st_size // 2
        tokens = np.memmap(path, dtype="<u2", mode="r") if size else np.empty(0, dtype="<u2")
        ends = documents["offset"].to_numpy() + documents["tokens"].to_numpy()
        if len(ends) and ends.max() > size:
            raise DamagedError(f"{path} holds {size:,} tokens, its documents {ends.max():,}: delete {evaluation.path}.")
        return cls(tokens, documents, evaluation.facts["bos"])

    def windows(self, sequence_length: int) -> Windows:
        """How the documents are cut into rows of at most `sequence_length` positions."""
        lengths = self.documents["tokens"].to_numpy()
        context = sequence_length // 4
        advance = sequence_length - context
        rows = []
        for document in np.flatnonzero(lengths):
            length = int(lengths[document])
            rows.append((document, 0, min(length, sequence_length), 0))
            rows += [
                (document, start, min(length, start + advance), context)
                for start in range(sequence_length, length, advance)
            ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 4)
        order = np.argsort(-(table[:, 2] - table[:, 1] + table[:, 3]), kind="stable")
        return Windows(*table[order].T)

    def batch(self, windows: Windows, chosen: range, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64, of `shape`: `<|bos|>` first; context, padding and rows to spare have the target -1."""
        inputs = np.full(shape, self.bos, dtype=np.int64)
        targets = np.full(shape, -1, dtype=np.int64)
        offsets = self.documents["offset"].to_numpy()
        for row, window in enumerate(chosen):
            offset, context = int(offsets[windows.document[window]]), int(windows.context[window])
            first = offset + int(windows.start[window]) - context
            text = self.tokens[first : offset + int(windows.stop[window])]
            inputs[row, 1 : len(text)] = text[:-1]
            targets[row, context : len(text)] = text[context:]
        return torch.from_numpy(inputs), torch.from_numpy(targets)


def batches(windows: Windows, sequence_length: int, batch_tokens: int) -> list[tuple[range, tuple[int, int]]]:
    """Consecutive windows and the shape (rows, length) they are padded to: at most `batch_tokens` positions, or one row."""
    lengths = windows.length
    plan = []
    first = 0
    for part, shorter in zip(PARTS, (*PARTS[1:], None), strict=True):
        length = math.ceil(sequence_length / part)
        below = math.ceil(sequence_length / shorter) if shorter else 0
        last = int(np.searchsorted(-lengths, -below, side="left"))  # windows are sorted, longest first
        rows = max(1, batch_tokens // length)
        plan += [(range(start, min(start + rows, last)), (rows, length)) for start in range(first, last, rows)]
        first = max(first, last)
    return plan


def evaluate(
    losses: Losses,
    holdout: EncodedHoldout,
    sequence_length: int,
    batch_tokens: int,
    world: World,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray | None:
    """Nats of each document, float64, the same on every rank; None when `stop` said so on one of them."""
    windows = holdout.windows(sequence_length)
    found = window_nats(losses, holdout, windows, sequence_length, batch_tokens, world, stop)
    if found is None:
        return None
    return np.bincount(windows.document, weights=found, minlength=holdout.documents.num_rows)


def window_nats(
    losses: Losses,
    holdout: EncodedHoldout,
    windows: Windows,
    sequence_length: int,
    batch_tokens: int,
    world: World,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray | None:
    """Nats of each window, as `evaluate` says. No window is longer than `sequence_length`.

    The ranks take batches in turn. Sums over a row are made on the device, in float64; the only synchronization is at the end.
    """
    nats = torch.zeros(len(windows), dtype=torch.float64, device=world.device)
    plan = batches(windows, sequence_length, batch_tokens)
    for turn in range(0, len(plan), world.size):
        if turn // world.size % CHECK_EVERY == 0 and world.any(stop()):
            return None
        if turn + world.rank < len(plan):
            chosen, shape = plan[turn + world.rank]
            inputs, targets = (t.to(world.device, non_blocking=True) for t in holdout.batch(windows, chosen, shape))
            nats[chosen.start : chosen.stop] = losses(inputs, targets)[: len(chosen)].double().sum(1)
    found: np.ndarray = world.sum(nats).cpu().numpy()
    return found
