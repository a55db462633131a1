"""Packed rows as the trainer reads them: memory-mapped, those that the budget takes, in order, each as often as the arm's epochs say.

The number of rows read so far *is* the position in the data: step `s` of a global batch of B rows reads rows [sB, (s+1)B) of
those taken, whatever the number of processes. Rank r of W takes the r-th of W equal slices, in micro-batches. So a run can be
resumed at any step, on another number of GPUs, and no row is read once too often or left out.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tasks.errors import DamagedError
from tasks.records.layout import ROWS
from tasks.store.artifact import Artifact

AHEAD = 4
"""Micro-batches prepared in host memory before the device asks for them."""


@dataclass(frozen=True)
class Batch:
    """How the rows of one optimizer step are shared out.

    `rows`: global batch; `world`, `rank`: processes; `micro`: rows of one forward pass of one process.
    """

    rows: int
    world: int = 1
    rank: int = 0
    micro: int = 1

    @property
    def accumulation(self) -> int:
        """Forward passes of one process per optimizer step."""
        return self.rows // (self.world * self.micro)

    def first_rows(self, step: int) -> range:
        """The first row of each micro-batch that this rank reads in `step`."""
        share = self.rows // self.world
        start = step * self.rows + self.rank * share
        return range(start, start + share, self.micro)


class PackedRows:
    """The `rows.bin` of a packed arm, (rows, sequence_length + 1) tokens, uint16, read by the page; or a part of its rows.

    `chosen`: numbers of the rows that are read, in this order and perhaps several times, int64 (count,); None: all of them.
    """

    def __init__(self, path: Path, rows: int, sequence_length: int, chosen: np.ndarray | None = None):
        size, wanted = path.stat().st_size, rows * (sequence_length + 1) * 2
        if size != wanted:
            raise DamagedError(
                f"{path} has {size:,} bytes instead of {wanted:,} ({rows:,} rows of {sequence_length + 1} tokens): "
                f"delete {path.parent} and pack the arm again."
            )
        self.rows = rows
        self.sequence_length = sequence_length
        self.chosen = np.arange(rows) if chosen is None else chosen
        self._tokens = np.memmap(path, dtype="<u2", mode="r", shape=(rows, sequence_length + 1))

    @classmethod
    def of(cls, packed: Artifact, chosen: np.ndarray | None = None) -> "PackedRows":
        """The rows of an `arms/<arm>/packed/<T>-<packing>` artifact, or the `chosen` ones of them."""
        return cls(packed.path / ROWS, packed.facts["rows"], packed.facts["sequence_length"], chosen)

    @property
    def distinct(self) -> int:
        """How many rows are read at least once."""
        return len(np.unique(self.chosen))

    def take(self, first: int, count: int) -> np.ndarray:
        """Chosen rows [first, first + count), shape (count, T + 1), int64. Raises IndexError past the end: nothing wraps."""
        if first < 0 or first + count > len(self.chosen):
            raise IndexError(f"rows {first:,} to {first + count:,} of {len(self.chosen):,}")
        return self._tokens[self.chosen[first : first + count]].astype(np.int64)


class RowFeed:
    """The micro-batches of a rank from step `start` to step `stop`, prepared by a thread and copied ahead.

    The thread takes pages from the memory map into (on a GPU: pinned) host memory; the copy to the device is queued one
    micro-batch before it is used. `waited` adds up the seconds for which the training thread had to wait.
    """

    def __init__(self, rows: PackedRows, batch: Batch, start: int, stop: int, device: torch.device):
        self.waited = 0.0
        self._rows, self._batch, self._range, self._device = rows, batch, range(start, stop), device
        self._ready: queue.Queue[torch.Tensor | BaseException | None] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._prepare, name="rows", daemon=True)
        self._thread.start()
        self._iterator = self._stream()

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the next micro-batch, each int64 of shape (micro, T) on the device."""
        return next(self._iterator)

    def close(self) -> None:
        """Stop the thread. Rows that were prepared and not asked for count as unread."""
        self._closed.set()
        while self._thread.is_alive():
            self._take_without_waiting()
            self._thread.join(0.01)

    def _prepare(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # pinning in a new thread would open a context on GPU 0
            for step in self._range:
                for first in self._batch.first_rows(step):
                    block = torch.from_numpy(self._rows.take(first, self._batch.micro))
                    self._ready.put(block.pin_memory() if self._device.type == "cuda" else block)
                    if self._closed.is_set():
                        return
            self._ready.put(None)
        except BaseException as error:  # handed to the training thread, which raises it
            self._ready.put(error)

    def _take_without_waiting(self) -> None:
        try:
            self._ready.get_nowait()
        except queue.Empty:
            return

    def _blocks(self) -> Iterator[torch.Tensor]:
        while True:
            began = time.perf_counter()
            block = self._ready.get()
            self.waited += time.perf_counter() - began
            if isinstance(block, BaseException):
                raise block
            if block is None:
                return
            yield block.to(self._device, non_blocking=True)

    def _stream(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        blocks = self._blocks()
        ahead = next(blocks, None)
        while ahead is not None:
            block, ahead = ahead, next(blocks, None)
            yield block[:, :-1].contiguous(), block[:, 1:].contiguous()
