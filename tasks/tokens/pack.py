"""The training rows of an arm: its text encoded on all cores, packed in shard order.

Row groups are read and encoded by threads (pyarrow and the encoders release the interpreter lock) and packed one after the
other, in order, by the caller's thread, which costs a few microseconds a document. The rows therefore do not depend on how
many threads there are. After every shard the state of the packer is saved: a killed run goes on at the shard it was in.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root
from tasks.tokens.encode import Encode, open_encoder
from tasks.tokens.packer import BATCH, BUFFER, Packer
from tasks.tokens.tokenizer import load_tokenizer

ROWS = "rows.bin"
STATE = ".state.npz"
CHECKED = 64
"""Documents of the first, middle and last shard on which the encoder is checked."""


def pack_arm(
    root: Root,
    arm_id: str,
    pool_id: str,
    sequence_length: int = 2_048,
    workers: int | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Make `arms/<arm>/packed/<sequence length>` from the arm's text shards, all but the last, which is the holdout.

    `rows.bin`: uint16, little-endian, (rows, sequence_length + 1), each row starting with BOS. Facts, in tokens with BOS:
    tokens = packed_tokens + cropped_tokens + dropped_tokens, where `dropped` is the last, incomplete row.
    `tokens_per_epoch` = rows * sequence_length is what training on every row once sees. `workers` (default: all cores) and
    an interruption change nothing about the rows.

    Raises InputError when there is no training shard, a shard has no `text`, or the arm does not fill one row.
    """
    text, trained = root.open(f"arms/{arm_id}/text"), root.open(f"pools/{pool_id}/tokenizer")
    tokenizer = load_tokenizer(trained.path)
    shards = sorted(text.path.glob("shard_*.parquet"))[:-1]
    if not shards:
        raise InputError(f"{text.name} has no training shard before the holdout: prepare the arm with more documents.")

    def make(work: Work) -> None:
        encoder = open_encoder(tokenizer, _sample(shards))
        packing = _Packing(work, Packer(sequence_length, tokenizer.bos), len(shards))
        packing.resume()
        packing.run(shards, encoder.encode, workers or os.cpu_count() or 1, progress)
        packer = packing.packer
        if not packer.rows:
            raise InputError(
                f"{text.name} holds {packer.tokens:,} tokens, which do not fill one row of {sequence_length + 1:,}: "
                "take more documents, or a shorter sequence_length."
            )
        work.finish(ROWS, rows=packer.rows)
        work.facts.update(
            documents=packer.documents,
            tokens=packer.tokens,
            bytes=packing.bytes,
            rows=packer.rows,
            packed_tokens=packer.rows * packer.width,
            cropped_tokens=packer.cropped_tokens,
            dropped_tokens=packer.dropped_tokens,
            dropped_documents=packer.dropped_documents,
            tokens_per_epoch=packer.rows * sequence_length,
            sequence_length=sequence_length,
            vocab_size=tokenizer.vocab_size,
            bos=tokenizer.bos,
            tokenizer=trained.fingerprint,
            encoder=encoder.library,
        )

    return root.build(
        f"arms/{arm_id}/packed/{sequence_length}",
        make,
        spec={"sequence_length": sequence_length, "buffer": BUFFER, "batch": BATCH},
        inputs={"text": text.fingerprint, "tokenizer": trained.fingerprint},
    )


@dataclass
class _Packing:
    """The work in progress: rows on disk, the packer, and how many shards they hold."""

    work: Work
    packer: Packer
    shards: int
    done: int = 0
    bytes: int = 0

    def resume(self) -> None:
        """Go on after the last shard that an earlier attempt saved; rows written after it are cut off."""
        rows = self.work.temporary(ROWS)
        try:
            with np.load(self.work.path / STATE) as state:
                self.packer.restore(state)
                self.done, self.bytes = state["shards"].tolist()
            os.truncate(rows, self._size())
        except FileNotFoundError:
            rows.write_bytes(b"")

    def run(self, shards: list[Path], encode: Encode, workers: int, progress: Progress) -> None:
        """Pack the shards that are left and close the last row."""
        with self.work.temporary(ROWS).open("ab") as out:
            for shard, size, ids, offsets in _encoded(shards[self.done :], encode, workers):
                self.bytes += size
                out.write(self.packer.push(ids, offsets).astype("<u2", copy=False).data)
                if shard:
                    self.done += 1
                    self._save(out)
                counters = {"documents": self.packer.documents, "tokens": self.packer.tokens, "rows": self.packer.rows}
                progress("pack", self.done, self.shards, counters)
            out.write(self.packer.flush().astype("<u2", copy=False).data)

    def _save(self, out) -> None:
        """Rows first, then the state that counts them: whatever is cut short, the state finds its rows."""
        out.flush()
        os.fsync(out.fileno())
        temporary = self.work.path / f"{STATE}.writing"
        with temporary.open("wb") as file:
            np.savez(file, shards=np.array([self.done, self.bytes]), **self.packer.state())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.work.path / STATE)

    def _size(self) -> int:
        return self.packer.rows * self.packer.width * np.dtype(np.uint16).itemsize


def _encoded(shards: list[Path], encode: Encode, workers: int) -> Iterator[tuple[bool, int, np.ndarray, np.ndarray]]:
    """(last of its shard, UTF-8 bytes, ids, offsets) of every row group, in order, a few ahead of the caller."""

    def read(shard: Path, group: int) -> tuple[int, np.ndarray, np.ndarray]:
        with pq.ParquetFile(shard) as file:
            column = file.read_row_group(group, columns=["text"], use_threads=False).column(0)
        if column.null_count:
            raise InputError(f"{shard} has {column.null_count} null texts in row group {group}: prepare the arm again.")
        return pc.sum(pc.binary_length(column)).as_py() or 0, *encode(column)

    ahead: deque[tuple[bool, Future]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for shard in shards:
                groups = _groups(shard)
                for group in range(groups):
                    ahead.append((group == groups - 1, pool.submit(read, shard, group)))
                    if len(ahead) > workers + 2:
                        last, future = ahead.popleft()
                        yield last, *future.result()
            while ahead:
                last, future = ahead.popleft()
                yield last, *future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def _groups(shard: Path) -> int:
    metadata = pq.read_metadata(shard)
    if "text" not in metadata.schema.names:
        raise InputError(f"{shard} has no column `text`: a shard must hold one column of that name.")
    return metadata.num_row_groups


def _sample(shards: list[Path]) -> list[str]:
    texts = []
    for shard in {shards[0], shards[len(shards) // 2], shards[-1]}:
        _groups(shard)
        with pq.ParquetFile(shard) as file:
            batch = next(file.iter_batches(CHECKED, columns=["text"]), None)
        texts += [text for text in batch.column(0).to_pylist() if text] if batch is not None else []
    return texts
