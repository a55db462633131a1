"""From the runs of a text pass to an arm's artifact: its shards, the holdout as the last one, and the list of what it took."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.arm import emit, scatter
from tasks.corpus.arm.selection import Selection
from tasks.corpus.arm.writer import write_texts
from tasks.corpus.heap import released
from tasks.corpus.left_out import left_out_facts, warn
from tasks.corpus.near.passages import Found
from tasks.corpus.parquet.shards import RANKS, shard_bounds, shard_name
from tasks.corpus.pool.entries import UNKNOWN
from tasks.corpus.pool.holdout import shard_of
from tasks.corpus.pool.index import Index
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Count, Workers
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.records.layout import DOCUMENTS
from tasks.records.near import NearCopies
from tasks.spec import Arm
from tasks.store.artifact import Artifact, Work

LISTED = 1 << 17
"""Rows of a row group of DOCUMENTS."""


def write_arm(
    work: Work,
    arm: Arm,
    opened: Index,
    selection: Selection,
    unrated: Mapping[str, str],
    scratch: Scratch,
    held: Artifact,
    mapper: Workers,
    retries: int,
    progress: Progress,
) -> NearCopies:
    """Write the shards of one arm from its runs, the holdout as the last shard, and the list of what the arm took. Returns its near
    copies of the holdout.

    `unrated`: files whose documents lack a rating that the arm asks for, and why.
    """
    with released():
        kept, rows, buckets, near = _lay_out(work, arm, opened, unrated, held, scratch, mapper)
    shards = len(rows)
    count = Count("shards", shards, progress, shards - sum(map(emit.shards_of, buckets)))
    target = None if scratch.url else work
    jobs = [
        emit.EmitJob(scratch, target, tuple(batch), mapper.threads) for batch in mapper.batches(buckets, emit.shards_of)
    ]
    with ThreadPoolExecutor(2) as side:
        listed = side.submit(_write_documents, work, opened, selection, kept)
        last = side.submit(_write_holdout, work, shard_name(shards), held)
        for _ in mapper.run(emit.emit, jobs, count):
            pass
        tokens, _ = listed.result(), last.result()
    if scratch.url:
        emit.collect(scratch, work, rows)
    work.facts.update(
        documents=len(kept),
        shards=shards,
        tokens=tokens,
        holdout_documents=held.facts["documents"],
        retries=retries,
        **selection.facts,
    )
    scratch.clear()
    return near


def _lay_out(
    work: Work,
    arm: Arm,
    opened: Index,
    unrated: Mapping[str, str],
    held: Artifact,
    scratch: Scratch,
    mapper: Workers,
) -> tuple[np.ndarray, dict[str, int], list[emit.Bucket], NearCopies]:
    """The runs laid out as shards: the ranks that are kept, rows of each shard, the buckets still to write, and near copies."""
    runs = scatter.Runs.read(scratch)
    dropped = runs.duplicates()
    kept = np.sort(runs.ranks[~dropped])
    if len(kept) < RANKS:
        raise InputError(f"The arm {arm.name} has only {len(kept)} documents with text: {RANKS} are needed.")
    bounds = shard_bounds(len(kept), arm.documents_per_shard)
    rows = {shard_name(n): end - start for n, (start, end) in enumerate(pairwise(bounds))}
    if scratch.url:
        emit.collect(scratch, work, rows)
    finished = [work.done(name) is not None for name in rows]
    damaged = {opened.blobs[number].name: reason for number, reason in runs.problems.items()}
    warn(f"The text of {arm.name}", damaged)
    work.facts.update(
        bytes=int(runs.lengths[~dropped].sum(dtype=np.int64)),
        duplicates=int(dropped.sum()),
        **left_out_facts(held.facts["bad_files"] | unrated | opened.left_out | damaged),
        **runs.counts,
        **_shared(arm, opened, held, runs.counts["holdout_texts_removed"]),
    )
    total = int(runs.lengths.sum(dtype=np.int64))
    limit = emit.bucket_bytes(total, mapper.count, remote=scratch.url is not None)
    buckets = emit.plan_buckets(runs, dropped, kept, bounds, finished, limit)
    return kept, rows, buckets, _near(runs.near, kept, removed=runs.counts["near_copies_removed"])


def _near(found: Found, kept: np.ndarray, removed: int) -> NearCopies:
    """Near copies by their places in the arm, or those that were `removed`, if any were. Duplicates that the arm left out do not count."""
    if removed:
        return NearCopies.of(np.full(len(found), -1), found.document, found.share, removed)
    place = np.searchsorted(kept, found.row)
    there = kept[np.minimum(place, len(kept) - 1)] == found.row
    return NearCopies.of(place[there], found.document[there], found.share[there])


def _shared(arm: Arm, opened: Index, held: Artifact, removed: int) -> dict[str, int]:
    """How many documents of other sources an arm of one source has too, estimated: as many as of their documents in the holdout,
    which were `removed` from the arm."""
    counts = held.facts.get("documents_of", {})
    others = sum(count for source, count in counts.items() if source != arm.subset)
    if not arm.subset or not others:
        return {}
    first, end = opened.of_source(arm.subset)
    return {"shared_documents": round(removed / others * (opened.documents - (end - first)))}


def _write_holdout(work: Work, name: str, held: Artifact) -> None:
    """The holdout as the shard `name`."""
    if work.done(name) is None:
        digest = write_texts(work.temporary(name), shard_of(held))
        work.finish(name, held.facts["documents"], digest)


def _write_documents(work: Work, opened: Index, selection: Selection, kept: np.ndarray) -> int | None:
    """documents.parquet: rank, blob, row, score and tokens of what the arm took and `kept`. Returns the total of tokens, if known."""
    documents, scores = selection.documents[kept], selection.scores[kept]
    schema = pa.schema(
        [
            ("rank", pa.int64()),
            ("blob", pa.dictionary(pa.int32(), pa.string())),
            ("row", pa.int64()),
            ("score", pa.float64()),
            ("tokens", pa.int64()),
        ]
    )
    blobs = pa.array([blob.name for blob in opened.blobs])
    packed = dict.fromkeys(("rank", "row", "tokens"), "DELTA_BINARY_PACKED") | {"score": "BYTE_STREAM_SPLIT"}
    settings = {"compression": "zstd", "use_dictionary": ["blob"], "column_encoding": packed}
    known = total = 0
    with pq.ParquetWriter(work.temporary(DOCUMENTS), schema, **settings) as writer:
        for start in range(0, len(documents), LISTED):
            part = documents[start : start + LISTED]
            file, row = opened.place(part)
            count = opened.tokens[part] if opened.tokens is not None else np.full(len(part), UNKNOWN)
            known += int((count >= 0).sum())
            total += int(count[count >= 0].sum(dtype=np.int64))
            columns = [
                pa.array(np.arange(start, start + len(part))),
                pa.DictionaryArray.from_arrays(pa.array(file.astype(np.int32)), blobs),
                pa.array(row),
                pa.array(scores[start : start + LISTED]),
                pa.array(count.astype(np.int64), mask=count < 0),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    work.finish(DOCUMENTS, len(documents))
    return total if known else None
