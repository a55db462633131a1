"""First half of the text pass: read the selected rows of each blob once and write a sorted run for each arm.

A run holds the texts that one arm takes from some row groups of one blob, by rank in the arm. It is written whole or not at
all, so a killed preparation resumes after the last finished run. Layout:

    texts, back to back | rank uint32 each | length uint32 each | digest, 16 bytes each (only for deduplication) |
    of each pair of a document and a held-out one that it is near to: rank uint32, number int32, share float32 | trailer
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.corpus.left_out import LeftOut
from tasks.corpus.near.leaks import open_passages
from tasks.corpus.near.passages import Found, Passages
from tasks.corpus.parquet.footer import BadFile
from tasks.corpus.parquet.pages import Memory
from tasks.corpus.parquet.ranges import Parts, fetch_ahead
from tasks.corpus.parquet.reading import Reading, take_texts
from tasks.corpus.parquet.texts import DIGEST, KnownTexts, buffers, digests
from tasks.corpus.parquet.views import Views
from tasks.corpus.pool.index import Index
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Tick
from tasks.store.named import open_named

PIECE_BYTES = 40 << 20
"""Decoded text of a piece: bounds the memory of a decoder, however large a blob is."""

GATHERED_BYTES = 4 << 20
"""Text that is gathered for a run at a time."""

SUFFIX = ".searched.run"
"""Of a run's name: those that versions without the search for near copies left are not gone on with."""

TRAILER = 4096
NOTHING = Views(np.zeros((0, 4), np.int32), ())
"""Taken from a piece that cannot be used."""

COUNTS = ("holdout_texts_removed", "near_copies_removed", "empty_texts", "bytes_read", "requests")


@dataclass(frozen=True)
class Target:
    """What one arm takes of a piece: ascending rows, counted within the piece, and their ranks in the arm."""

    scratch: Scratch
    rows: np.ndarray
    ranks: np.ndarray
    digests: bool


@dataclass(frozen=True)
class Piece:
    """Row groups of one blob, and what the arms take of them."""

    name: str
    reading: Reading
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Near:
    """Where the passages of the holdout lie, from which share on a document is a near copy, and whether copies are left out."""

    place: Scratch
    share: float
    remove: bool


@dataclass(frozen=True)
class ScatterJob:
    """Some pieces of a pool, to be read from `urls`, as `open_named` takes them."""

    urls: Mapping[str, str]
    text_column: str
    pieces: tuple[Piece, ...]
    holdout: KnownTexts
    near: Near
    skip_bad_files: bool
    threads: int


def scatter(job: ScatterJob, tick: Tick) -> None:
    """Write the runs of all pieces. Raises InputError naming a blob whose text cannot be used."""
    source = open_named(job.urls)
    memory = Memory()
    passages = open_passages(job.near.place, job.near.share)

    def handle(piece: Piece, parts: Parts) -> int:
        size = sum(len(data) for _, data in parts)
        try:
            taken, problem = _take(piece, parts, job.text_column, memory), ""
        except BadFile as error:
            LeftOut(source, job.skip_bad_files).add(error)
            taken, problem = [], error.reason[:200]
        read = {"bytes_read": size, "requests": len(parts)}
        parts.clear()
        for number, target in enumerate(piece.targets):
            texts, ranks = (taken[number], target.ranks) if taken else (NOTHING, NOTHING.sizes)
            run = _run(
                texts, ranks, target.digests, job.holdout, passages, job.near.remove, read | {"problem": problem}
            )
            target.scratch.write(piece.name, run)
        return sum(len(target.rows) for target in piece.targets)

    items = ((piece, piece.reading.blob, piece.reading.requests()) for piece in job.pieces)
    before = dict(vars(source.counters))
    for rows in fetch_ahead(source, items, handle, threads=job.threads):
        now = dict(vars(source.counters))
        tick({"units": 1, "rows": rows} | {name: now[name] - before[name] for name in now})
        before = now


def _take(piece: Piece, parts: Parts, text_column: str, memory: Memory) -> list[Views]:
    """The texts of each target, in the order of their rows. Raises BadFile."""
    texts = piece.reading.texts(parts, text_column, memory)
    return [take_texts(piece.reading, texts, target.rows) for target in piece.targets]


def _run(
    texts: Views,
    ranks: np.ndarray,
    wants: bool,
    holdout: KnownTexts,
    passages: Passages,
    remove: bool,
    counts: Mapping[str, Any],
) -> Iterator[bytes | np.ndarray]:
    """The bytes of one run. Texts are gathered a few at a time, so that there is no second copy of all of them."""
    order = np.argsort(ranks)
    ranks = ranks[order].astype(np.uint32)
    dropped, sizes, marks, pairs = np.zeros(len(ranks), bool), [], [], []
    first = held = copies = 0
    for part in texts[order].cut(GATHERED_BYTES):
        gathered = part.gather()
        known = holdout.matches(gathered)
        near = passages.find(gathered)
        near = near[~known[near.row]]
        out = known | (part.sizes == 0)
        if remove:
            out[near.row] = True
            copies += len(np.unique(near.row))
        dropped[first : first + len(part)] = out
        pairs.append(near.after(first))
        first, held = first + len(part), held + int(known.sum())
        if out.any():
            gathered = gathered.take(pa.array(np.flatnonzero(~out)))
        offsets, data = buffers(gathered)
        yield data[offsets[0] : offsets[-1]]
        sizes.append(np.diff(offsets).astype(np.uint32))
        if wants:
            marks.append(digests(gathered))
    sizes = np.concatenate([np.zeros(0, np.uint32), *sizes])
    yield from (ranks[~dropped], sizes, *(mark.view(np.uint8) for mark in marks))
    near = Found.concat(pairs)
    yield from (ranks[near.row], near.document.astype(np.int32), near.share)
    left_out = {"holdout_texts_removed": held, "near_copies_removed": copies}
    counts = {**left_out, "empty_texts": int(dropped.sum()) - held - copies, **counts}
    size = {"rows": len(sizes), "bytes": int(sizes.sum(dtype=np.int64)), "near": len(near)}
    trailer = {**size, "digests": wants, **counts}
    yield json.dumps(trailer).encode().ljust(TRAILER)


def plan_pieces(
    index: Index,
    arms: Sequence[tuple[Scratch, np.ndarray, bool]],
    done: Sequence[Iterable[str]],
    files_at_once: int = 64,
) -> Iterator[Piece]:
    """The pieces of the pool that some arm still needs.

    `arms` gives for each its scratch space, its documents in order, and whether digests are wanted; `done` names the runs that
    each arm has already.
    """
    sorted_arms = []
    for scratch, order, wants in arms:
        rank = np.empty(len(index), np.uint32)
        rank[order] = np.arange(len(order), dtype=np.uint32)
        documents = np.sort(order)
        sorted_arms.append((scratch, documents, rank[documents], wants))
    group_bounds = np.searchsorted(index.file, np.arange(len(index.blobs) + 1))
    footers: dict[int, bytes] = {}
    for file in range(len(index.blobs)):
        if file % files_at_once == 0:
            footers = index.footers(range(file, min(file + files_at_once, len(index.blobs))))
        for part, groups in enumerate(_cut(index, range(group_bounds[file], group_bounds[file + 1]))):
            name = f"{file:08d}-{part:05d}{SUFFIX}"
            targets, used = [], np.zeros(len(groups), bool)
            chosen = []
            first = index.group_first[groups[0]]
            # of the type of document numbers, or each search would convert all of them
            bounds = index.group_first[np.array([*groups, groups[-1] + 1])].astype(np.uint32)
            for (scratch, documents, ranks, wants), finished in zip(sorted_arms, done, strict=True):
                low, high = np.searchsorted(documents, bounds[[0, -1]])
                if low == high or name in finished:
                    continue
                rows = documents[low:high]
                used |= np.diff(np.searchsorted(rows, bounds)) > 0
                chosen.append((scratch, rows, ranks[low:high], wants))
            if not chosen:
                continue
            kept = [group for group, use in zip(groups, used, strict=True) if use]
            # rows count within the row groups that are read
            skipped = np.cumsum(np.where(used, 0, np.diff(bounds.astype(np.int64))))
            for scratch, rows, ranks, wants in chosen:
                group = np.searchsorted(bounds, rows, side="right") - 1
                targets.append(Target(scratch, (rows - first - skipped[group]).astype(np.uint32), ranks, wants))
            yield Piece(name, index.reading(kept, footers[file]), tuple(targets))


def _cut(index: Index, groups: Sequence[int]) -> Iterator[list[int]]:
    """Row groups of one file in pieces of about `PIECE_BYTES` of decoded text, at least one row group each."""
    piece: list[int] = []
    size = 0
    for group in groups:
        if piece and size + index.text_bytes[group] > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(group)
        size += int(index.text_bytes[group])
    if piece:
        yield piece


@dataclass(frozen=True)
class Runs:
    """The headers of all runs of an arm. Documents are those of one run after another, by rank within a run."""

    names: tuple[str, ...]
    first: np.ndarray
    """Position of each run's first document, (runs + 1,)."""
    ranks: np.ndarray
    lengths: np.ndarray
    digests: np.ndarray | None
    near: Found
    """Near copies by their ranks, those that are not in the runs included."""
    counts: Mapping[str, int]
    problems: Mapping[int, str]
    """Why the text of a file was left out, or a part of it, by the number of the file."""

    @classmethod
    def read(cls, scratch: Scratch) -> "Runs":
        """Read the trailers and headers of every run in a scratch space."""
        sizes = {name: size for name, size in sorted(scratch.sizes().items()) if name.endswith(SUFFIX)}
        ranks, sized, marks, near, first, problems = [], [], [], [], [0], {}
        counts = dict.fromkeys(COUNTS, 0)
        for name, size in sizes.items():
            trailer = json.loads(bytes(scratch.read(name, size - TRAILER, size)))
            rows, wants = trailer["rows"], trailer["digests"]
            header = scratch.read(name, trailer["bytes"], size - TRAILER)
            ranks.append(np.frombuffer(header, np.uint32, rows))
            sized.append(np.frombuffer(header, np.uint32, rows, offset=4 * rows))
            if wants:
                marks.append(np.frombuffer(header, np.dtype((np.void, DIGEST)), rows, offset=8 * rows))
            pairs, place = trailer["near"], len(header) - 12 * trailer["near"]
            columns = (
                np.frombuffer(header, kind, pairs, offset=place + 4 * pairs * number)
                for number, kind in enumerate((np.uint32, np.int32, np.float32))
            )
            near.append(Found(*columns))
            first.append(first[-1] + rows)
            for key in COUNTS:
                counts[key] += trailer.get(key, 0)
            if trailer["problem"]:
                problems.setdefault(int(name.partition("-")[0]), trailer["problem"])
        none = np.zeros(0, np.uint32)
        return cls(
            names=tuple(sizes),
            first=np.array(first),
            ranks=np.concatenate([none, *ranks]),
            lengths=np.concatenate([none, *sized]),
            digests=np.concatenate(marks) if marks else None,
            near=Found.concat(near),
            counts=counts,
            problems=problems,
        )

    def duplicates(self) -> np.ndarray:
        """Whether the same text occurs at a better rank, bool (n,)."""
        if self.digests is None:
            return np.zeros(len(self.ranks), bool)
        by_rank = np.argsort(self.ranks)
        _, keep = np.unique(self.digests[by_rank], return_index=True)
        duplicate = np.ones(len(self.ranks), bool)
        duplicate[by_rank[keep]] = False
        return duplicate
