"""The training rows of an arm: its text encoded on all cores, packed in shard order.

Row groups are read and encoded by threads (pyarrow and the encoders release the interpreter lock) and packed one after the
other, in order, by the caller's thread, which costs a few microseconds a document. The rows therefore do not depend on how
many threads there are. After every shard the state of the packer is saved: a killed run resumes at the shard it was in.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.cores import cores, wait_for
from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import CONTENTS, DOCUMENTS, ROWS, TOKEN_BYTES, ArmFolder, PoolFolder
from tasks.records.packed import ROW_CONTENTS
from tasks.spec import Packing
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root
from tasks.tokens.encode import Encode, open_encoder
from tasks.tokens.packer import BATCH, BUFFER, STEP, CropPacker, Packed, SplitPacker
from tasks.tokens.tokenizer import load_tokenizer

PACKERS = {"split": SplitPacker, "crop": CropPacker}
STATE = ".state.npz"
CHECKED = 64
"""Documents of the first, middle and last shard on which the encoder is checked."""

READ_AHEAD = 2
"""Row groups encoded before their turn, beyond one for each worker: what bounds the memory."""

ARM_CORES = 4
"""Cores that one arm keeps busy: a thread packs what the others encode. Where there are more, several arms are packed at a time."""

UNREADABLE = (ValueError, KeyError, EOFError, BadZipFile)
"""What a damaged state, or one of another version, raises; packing then starts over."""


def pack_arm(
    root: Root,
    arm_id: str,
    pool_id: str,
    sequence_length: int = 2_048,
    packing: Packing = "split",
    workers: int | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Make `arms/<arm>/packed/<sequence length>-<packing>` from the arm's text shards, all but the last, the holdout.

    `rows.bin`: uint16, little-endian, (rows, sequence_length + 1); `contents.bin`: what each row holds (`records.packed`).
    `packing`: see `packer`. Facts: `tokens` of the arm with BOS, of which `cropped_tokens` and `dropped_tokens` (the last,
    incomplete row) are in no row; `tokens_per_epoch` = rows * sequence_length is what training on every row once sees;
    `bytes` of text in the arm and `trained_bytes` of it in the rows. `workers` (default: all cores) and an interruption
    change nothing about the rows.

    Raises InputError when there is no training shard, a shard has no `text`, or the arm does not fill one row.
    """
    text, trained = root.open(ArmFolder(arm_id).text), root.open(PoolFolder(pool_id).tokenizer)
    tokenizer = load_tokenizer(trained.path)
    shards = _training_shards(text)

    def make(work: Work) -> None:
        encoder = open_encoder(tokenizer, _sample(shards))
        token_bytes, scores = np.load(trained.path / TOKEN_BYTES, allow_pickle=False), _scores(text)
        packed = _Packing(work, PACKERS[packing](sequence_length, tokenizer.bos), token_bytes, scores)
        packed.resume()
        packed.run(shards, encoder.encode, workers or cores(), progress)
        packer = packed.packer
        if not packer.rows:
            raise InputError(
                f"{text.name} holds {packer.tokens:,} tokens, which do not fill one row of {sequence_length + 1:,}: "
                "take more documents, or a shorter sequence_length."
            )
        work.finish(ROWS, rows=packer.rows)
        work.finish(CONTENTS, rows=packer.rows)
        work.facts.update(
            documents=packer.documents,
            tokens=packer.tokens,
            bytes=packed.bytes,
            trained_bytes=packed.trained_bytes,
            rows=packer.rows,
            cropped_tokens=packer.cropped_tokens,
            dropped_tokens=packer.dropped_tokens,
            dropped_documents=packer.dropped_documents,
            tokens_per_epoch=packer.rows * sequence_length,
            sequence_length=sequence_length,
            packing=packing,
            vocab_size=tokenizer.vocab_size,
            bos=tokenizer.bos,
            tokenizer=trained.fingerprint,
            encoder=encoder.library,
        )

    return root.build(
        ArmFolder(arm_id).packed(sequence_length, packing),
        make,
        spec={"sequence_length": sequence_length, "packing": packing}
        | ({"buffer": BUFFER, "batch": BATCH} if packing == "crop" else {}),
        inputs={"text": text.manifest, "tokenizer": trained.manifest},
    )


def pack_arms(
    root: Root,
    arm_ids: Sequence[str],
    pool_id: str,
    sequence_length: int = 2_048,
    packing: Packing = "split",
    progress: Progress = silent,
) -> dict[str, Artifact]:
    """`pack_arm` for several arms of a pool, {id: rows}, at the same time where there are cores for it. `progress` counts the shards of all.

    After an error all arms stop; the next attempt resumes from what each has saved.
    """
    arm_ids = list(dict.fromkeys(arm_ids))
    missing = [id for id in arm_ids if root.find(ArmFolder(id).packed(sequence_length, packing)) is None]
    total = sum(len(_training_shards(root.open(ArmFolder(id).text))) for id in missing)
    together = max(1, min(len(missing), cores() // ARM_CORES))
    told: dict[str, tuple[int, Mapping[str, float]]] = {}
    telling, failed = threading.Lock(), threading.Event()

    def pack(id: str) -> Artifact:
        def tell(stage: str, done: int, _: int, counters: Mapping[str, float]) -> None:
            if failed.is_set():
                raise CancelledError(f"another arm than {id} could not be packed")
            with telling:
                told[id] = done, counters
                done = sum(done for done, _ in told.values())
                counters = {name: sum(counted[name] for _, counted in told.values()) for name in counters}
                progress(stage, done, max(done, total), counters)

        return pack_arm(root, id, pool_id, sequence_length, packing, cores() // together, tell)

    with ThreadPoolExecutor(together) as pool:
        packed: dict[str, Future[Artifact]] = {}
        try:
            packed |= ((id, pool.submit(pack, id)) for id in arm_ids)
            wait_for(packed.values())
        except BaseException:
            failed.set()
            for each in packed.values():
                each.cancel()
            raise
    return {id: each.result() for id, each in packed.items()}


@dataclass
class _Packing:
    """The work in progress: rows on disk, the packer, and how many shards they hold."""

    work: Work
    packer: SplitPacker | CropPacker
    token_bytes: np.ndarray
    scores: np.ndarray
    """float64 (documents of the arm,), in its order; NaN without a rating."""
    done: int = 0
    bytes: int = 0
    trained_bytes: int = 0

    def resume(self) -> None:
        """Resume after the last shard that an earlier attempt saved; rows written after it are cut off."""
        written = {name: self.work.temporary(name) for name in (ROWS, CONTENTS)}
        for name, path in written.items():
            if (self.work.path / name).is_file():  # killed after the last row and before the manifest
                (self.work.path / name).replace(path)
            path.touch()
        with contextlib.suppress(FileNotFoundError, *UNREADABLE), np.load(self.work.path / STATE) as state:
            saved = type(self.packer)(self.packer.width - 1, self.packer.bos)
            saved.restore(state)
            progress = state["shards"].tolist()  # read before anything is taken over: a damaged state is dropped whole
            if all(saved.rows * self._row_bytes(name) <= path.stat().st_size for name, path in written.items()):
                self.packer = saved
                self.done, self.bytes, self.trained_bytes = progress
        for name, path in written.items():
            os.truncate(path, self.packer.rows * self._row_bytes(name))

    def run(self, shards: list[Path], encode: Encode, workers: int, progress: Progress) -> None:
        """Pack the shards that are left and close the last row."""
        with self.work.temporary(ROWS).open("ab") as rows, self.work.temporary(CONTENTS).open("ab") as contents:
            for group, size, ids, offsets in _encoded(_row_groups(shards, self.done), encode, workers):
                self.bytes += size
                self._write(self.packer.push(ids, offsets), rows, contents)
                if group.last:
                    self.done = group.shard + 1
                    self._save(rows, contents)
                counters = {"documents": self.packer.documents, "tokens": self.packer.tokens, "rows": self.packer.rows}
                progress("pack", self.done, len(shards), counters)
            self._write(self.packer.flush(), rows, contents)

    def _write(self, packed: Packed, rows: BinaryIO, contents: BinaryIO) -> None:
        """Append rows and what they hold. A row trains on all its tokens but the first, which it only reads."""
        rows.write(packed.rows.astype("<u2", copy=False).data)
        held = np.zeros(len(packed.rows), ROW_CONTENTS)
        row, document, tokens, begins = packed.pieces.T
        held["documents"] = np.bincount(row, begins, len(held))
        for start in range(0, len(held), some := max(1, STEP // self.packer.width)):
            part = slice(start, start + some)
            held["bytes"][part] = self.token_bytes[packed.rows[part, 1:]].sum(1)
        score = self.scores[document]
        rated = np.isfinite(score)
        sums = np.bincount(row[rated], score[rated] * tokens[rated], len(held))
        weights = np.bincount(row[rated], tokens[rated], len(held))
        held["score"] = np.divide(sums, weights, out=np.full(len(held), np.nan), where=weights > 0)
        contents.write(held.data)
        self.trained_bytes += int(held["bytes"].sum(dtype=np.int64))

    def _save(self, *written: BinaryIO) -> None:
        """Rows first, then the state that counts them: whatever is cut short, the state finds its rows."""
        for out in written:
            out.flush()
            os.fsync(out.fileno())
        temporary = self.work.path / f"{STATE}.writing"
        with temporary.open("wb") as file:
            arrays: dict[str, Any] = {
                "shards": np.array([self.done, self.bytes, self.trained_bytes]),
                **self.packer.state(),
            }
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.work.path / STATE)

    def _row_bytes(self, name: str) -> int:
        return self.packer.width * np.dtype(np.uint16).itemsize if name == ROWS else ROW_CONTENTS.itemsize


@dataclass(frozen=True)
class _RowGroup:
    path: Path
    shard: int
    number: int
    last: bool


def _row_groups(shards: list[Path], start: int) -> Iterator[_RowGroup]:
    """The row groups of the shards from number `start` on, in order."""
    for shard, path in enumerate(shards[start:], start):
        groups = pq.read_metadata(path).num_row_groups
        yield from (_RowGroup(path, shard, number, number == groups - 1) for number in range(groups))


def _encoded(
    groups: Iterator[_RowGroup], encode: Encode, workers: int
) -> Iterator[tuple[_RowGroup, int, np.ndarray, np.ndarray]]:
    """(row group, UTF-8 bytes, ids, offsets) in the order of the groups, read and encoded a few ahead of the caller."""

    def read(group: _RowGroup) -> tuple[_RowGroup, int, np.ndarray, np.ndarray]:
        with pq.ParquetFile(group.path) as file:
            column = file.read_row_group(group.number, columns=["text"], use_threads=False).column(0)
        if column.null_count:
            raise InputError(
                f"{group.path} has {column.null_count} null texts in row group {group.number}: prepare the arm again."
            )
        return group, pc.sum(pc.binary_length(column)).as_py() or 0, *encode(column)

    ahead: deque[Future[tuple[_RowGroup, int, np.ndarray, np.ndarray]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for group in groups:
                ahead.append(pool.submit(read, group))
                if len(ahead) > workers + READ_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _training_shards(text: Artifact) -> list[Path]:
    """The arm's shards but for the last, the common holdout. Raises InputError when they cannot be training text."""
    shards = sorted(text.path.glob("shard_*.parquet"))[:-1]
    if not shards:
        raise InputError(f"{text.name} has no training shard before the holdout: prepare the arm with more documents.")
    for shard in shards:
        if "text" not in pq.read_schema(shard).names:
            raise InputError(f"{shard} has no column `text`: a shard must hold one column of that name.")
    return shards


def _scores(text: Artifact) -> np.ndarray:
    """The score of each document in the arm's order; NaN without a rating."""
    scores: np.ndarray = pq.read_table(text.path / DOCUMENTS, columns=["score"])["score"].to_numpy()
    return scores.astype(float)


def _sample(shards: list[Path]) -> list[str]:
    """Documents of the first, the middle and the last shard."""
    texts = []
    for shard in sorted({shards[0], shards[len(shards) // 2], shards[-1]}):
        with pq.ParquetFile(shard) as file:
            batch = next(file.iter_batches(CHECKED, columns=["text"]), None)
        texts += [text for text in batch.column(0).to_pylist() if text] if batch is not None else []
    return texts
