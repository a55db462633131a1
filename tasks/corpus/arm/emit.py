"""Second half of the text pass: gather the runs of an arm by bucket, order each bucket, write its shards.

A bucket is one shard, or as many consecutive shards as fit into `bucket_bytes` of text. It needs one stretch of each run.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.corpus.arm.scatter import Runs
from tasks.corpus.arm.writer import write_texts
from tasks.corpus.disk import write_all
from tasks.corpus.parquet.shards import ordered_groups, shard_name
from tasks.corpus.parquet.views import Views
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Tick
from tasks.records.draws import CHUNK
from tasks.store.artifact import Work

BUCKET_BYTES = (32 << 20, 256 << 20)
"""Text of a bucket: the least, and the most, for arms so large that small stretches would keep the disk seeking."""

BUCKETS = 512
"""Between these limits, an arm is cut into this many."""

REMOTE_BUCKET_BYTES = 512 << 20
"""The same for runs in an object store, where each stretch is a request."""

DROPPED = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Stretch:
    """Bytes [start, end) of a run."""

    run: str
    start: int
    end: int


@dataclass(frozen=True)
class Bucket:
    """Consecutive shards: `bounds` in final positions, and the documents' lengths and positions as they lie in the runs."""

    shards: tuple[int, ...]
    bounds: tuple[int, ...]
    stretches: tuple[Stretch, ...]
    lengths: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class EmitJob:
    """Some buckets of an arm, from `scratch` to the work directory of its text or, if that is on another machine (None), back to
    `scratch`, where `collect` finds the shards."""

    scratch: Scratch
    work: Work | None
    buckets: tuple[Bucket, ...]
    threads: int


def bucket_bytes(total: int, workers: int, *, remote: bool) -> int:
    """The most text of a bucket for an arm of `total` bytes: a few buckets per worker where there is enough."""
    least, most = BUCKET_BYTES
    limit = REMOTE_BUCKET_BYTES if remote else min(most, max(least, total // BUCKETS))
    return min(limit, total // (2 * workers) + 1)


def shards_of(bucket: Bucket) -> int:
    """Number of shards of a bucket."""
    return len(bucket.shards)


def emit(job: EmitJob, tick: Tick) -> None:
    """Write the shards of all buckets. Syncing waits for the disk, not for a core, and has threads of its own."""
    memory = threading.local()
    with ThreadPoolExecutor(job.threads) as encoders, ThreadPoolExecutor(job.threads) as closers:

        def one(bucket: Bucket) -> list[Future]:
            return [closers.submit(_close, job, *shard) for shard in _shards(job, bucket, memory)]

        futures = [encoders.submit(one, bucket) for bucket in job.buckets]
        try:
            for future in as_completed(futures):
                for shard in future.result():
                    tick({"units": 1, "rows": shard.result()})
        except BaseException:
            encoders.shutdown(wait=False, cancel_futures=True)
            raise


def _close(job: EmitJob, path: Path, name: str, rows: int, digest: str) -> int:
    """Record a written shard as finished; returns its rows."""
    if job.work is not None:
        job.work.finish(name, rows, digest)
    else:
        job.scratch.write(name, [path.read_bytes()])
        path.unlink()
    return rows


def collect(scratch: Scratch, work: Work, rows: dict[str, int]) -> None:
    """Copy shards that other machines left in the scratch space to the work directory, several at a time."""
    there = scratch.sizes()

    def one(name: str) -> None:
        with work.temporary(name).open("wb", buffering=0) as file:
            write_all(file, scratch.read(name, 0, there[name]))
        work.finish(name, rows[name])
        scratch.remove(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, [name for name in rows if name in there and work.done(name) is None]))


def _shards(job: EmitJob, bucket: Bucket, memory: threading.local) -> Iterator[tuple[Path, str, int, str]]:
    """Write the shards of a bucket; yields the path, name, rows and SHA-256 of each."""
    size = sum(s.end - s.start for s in bucket.stretches)
    data = getattr(memory, "data", None)
    if data is None or len(data) < size:  # each thread reuses its memory: fresh pages cost as much as reading
        data = memory.data = np.empty(size + size // 8, np.uint8)
    view, place = memoryview(data), 0
    for stretch in bucket.stretches:
        end = place + stretch.end - stretch.start
        job.scratch.read_into(stretch.run, stretch.start, view[place:end])
        place = end
    ends = np.cumsum(bucket.lengths, dtype=np.int64)
    texts = Views.over(pa.py_buffer(data), ends - bucket.lengths, bucket.lengths)
    order = np.argsort(bucket.positions)  # dropped ones are last
    base = bucket.bounds[0]
    for shard, (start, end) in zip(bucket.shards, pairwise(bucket.bounds), strict=True):
        name = shard_name(shard)
        if job.work is not None:
            path = job.work.temporary(name)
        else:
            handle, written = tempfile.mkstemp(suffix=name)
            os.close(handle)
            path = Path(written)
        digest = write_texts(path, ordered_groups(texts, order[start - base : end - base]))
        yield path, name, end - start, digest


def plan_buckets(
    runs: Runs, dropped: np.ndarray, kept: np.ndarray, bounds: Sequence[int], done: Sequence[bool], limit: int
) -> list[Bucket]:
    """Buckets for the shards that are not done.

    `dropped` is bool per document of the runs, `kept` the ascending ranks of the others, `bounds` the shard boundaries in final
    positions.
    """
    below = np.zeros(int(runs.ranks.max()) + 2, np.uint32)  # kept documents below each rank
    below[kept.astype(np.int64) + 1] = 1
    positions = np.cumsum(below, dtype=np.uint32, out=below)[runs.ranks]
    size = np.zeros(len(bounds) - 1)
    for i in range(0, len(positions), CHUNK):
        part = slice(i, i + CHUNK)
        shard = np.minimum(np.searchsorted(bounds, positions[part], side="right") - 1, len(size) - 1)
        size += np.bincount(shard, weights=runs.lengths[part], minlength=len(size))
    positions[dropped] = DROPPED
    ends = np.cumsum(runs.lengths, dtype=np.int64)

    groups: list[list[int]] = []
    total = 0.0
    for number in range(len(bounds) - 1):
        if done[number]:
            continue
        if groups and groups[-1][-1] == number - 1 and total + size[number] <= limit:
            groups[-1].append(number)
            total += size[number]
        else:
            groups.append([number])
            total = size[number]

    # A run is sorted by rank, so each bucket needs one stretch of it. Found for all buckets of a run at once.
    edges = np.array([bounds[n] for group in groups for n in (group[0], group[-1] + 1)], np.int64)
    limits = np.append(kept.astype(np.int64), np.int64(1) << 32)[edges]
    limits[edges == 0] = 0
    cuts = np.array(
        [np.searchsorted(runs.ranks[a:b], limits) + a for a, b in pairwise(runs.first.tolist())], np.int64
    ).reshape(len(runs.names), len(edges))
    return [
        _bucket(runs, ends, positions, bounds, group, cuts[:, 2 * i], cuts[:, 2 * i + 1])
        for i, group in enumerate(groups)
    ]


def _bucket(
    runs: Runs,
    ends: np.ndarray,
    positions: np.ndarray,
    bounds: Sequence[int],
    group: Sequence[int],
    low: np.ndarray,
    high: np.ndarray,
) -> Bucket:
    stretches, index = [], []
    for run in np.flatnonzero(high > low):
        base = ends[runs.first[run]] - runs.lengths[runs.first[run]]
        start = ends[low[run]] - runs.lengths[low[run]] - base
        stretches.append(Stretch(runs.names[run], int(start), int(ends[high[run] - 1] - base)))
        index.append(np.arange(low[run], high[run]))
    rows = np.concatenate(index)
    return Bucket(
        tuple(group),
        tuple(bounds[n] for n in (*group, group[-1] + 1)),
        tuple(stretches),
        runs.lengths[rows],
        positions[rows],
    )
