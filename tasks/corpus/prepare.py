"""Blobs -> pool -> arm: the steps of preparation, each an artifact that is skipped if complete and resumed if partial.

open_pool         list the sources; the pool's name follows from its parameters and the blobs' ETags
set_damaged_aside compare what earlier attempts completed with its checksums
build_index       pools/<pool>/index       footers and scores
build_holdout     pools/<pool>/holdout     documents for evaluation
build_sample      pools/<pool>/sample      text for the tokenizer
plan_arm          what an arm would take, read and need, before any text moves
build_arms        arms/<arm>/text          shards of several arms in one pass over the text

Each builds what it needs and does not find. `flows.sequence` calls them in order.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.arm import emit, scatter
from tasks.corpus.arm.parts import NONE, mix
from tasks.corpus.arm.plan import ArmPlan, check_disk, disk_bytes, plan
from tasks.corpus.arm.selection import Selection, check_subset, select
from tasks.corpus.arm.writer import write_texts
from tasks.corpus.heap import drop_pages, released
from tasks.corpus.left_out import left_out_facts, warn
from tasks.corpus.parquet.shards import RANKS, shard_bounds, shard_name
from tasks.corpus.pool import holdout, index, sample
from tasks.corpus.pool.holdout import HeldOut
from tasks.corpus.pool.index import UNKNOWN, Index
from tasks.corpus.pool.sources import list_blobs, place_of, places
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import Workers, local_workers, of_batch
from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import DOCUMENTS, ArmFolder, PoolFolder, arm_id, pool_id
from tasks.spec import Arm, Pool
from tasks.store import bulk
from tasks.store.artifact import Artifact, Work
from tasks.store.blobs import Blob, Blobs
from tasks.store.locks import locked
from tasks.store.named import named, open_named, unnamed
from tasks.store.root import Root

LISTED = 1 << 17
"""Rows of a row group of DOCUMENTS."""


@dataclass(frozen=True)
class PoolHandle:
    """A pool with its sources listed: its name, its blobs, and the URLs they are read from, as `open_named` takes them."""

    pool: Pool
    pool_id: str
    blobs: tuple[Blob, ...]
    urls: Mapping[str, str]
    readable: tuple[Blob, ...]
    """The same blobs as they lie under `urls`: with other ETags once they are copied to this machine."""

    def source(self) -> Blobs:
        """The stores the blobs are read from."""
        return open_named(self.urls)

    def at_hand(self, root: Root) -> "PoolHandle":
        """With `download=bulk`, copied below the root first if azcopy can do it; if not, the log says why."""
        if self.pool.download == "ranged" or self.urls != places(self.pool):
            return self
        urls, readable = dict(self.urls), list(self.readable)
        for place, url in self.urls.items():
            if (reason := bulk.why_not(url)) is not None:
                logging.getLogger("fabrating").warning("%s is read by ranges: %s.", url, reason)
                continue
            folder = root.path(PoolFolder(self.pool_id).intermediate("raw")) / place
            numbers = [number for number, blob in enumerate(self.blobs) if place_of(self.pool, blob) == place]
            with locked(root.path(f".locks/{self.pool_id}.raw.lock")):
                copies = bulk.copy_blobs(url, [unnamed(place, self.blobs[number]) for number in numbers], folder)
            urls[place] = folder.as_uri()
            for number, copy in zip(numbers, copies, strict=True):
                readable[number] = named(place, copy)
        return replace(self, urls=urls, readable=tuple(readable))


def open_pool(root: Root, pool: Pool | PoolHandle) -> PoolHandle:
    """List the pool's sources. Raises InputError when one cannot be listed or has no Parquet files."""
    if isinstance(pool, PoolHandle):
        return pool
    blobs = tuple(list_blobs(pool))
    return PoolHandle(pool, pool_id(pool, blobs), blobs, places(pool), blobs)


def set_damaged_aside(root: Root, pool: Pool | PoolHandle, arm: Arm) -> None:
    """Compare every file of the pool and of the arm's text with its checksum: a damaged artifact is set aside and made again."""
    pool_id = open_pool(root, pool).pool_id
    for name in [*PoolFolder(pool_id).parts, ArmFolder(arm_id(arm, pool_id)).text]:
        root.intact(name)


def build_index(
    root: Root,
    pool: Pool | PoolHandle,
    *,
    workers: int | None = None,
    mapper: Workers | None = None,
    progress: Progress = silent,
) -> Artifact:
    """The index of the pool. Raises InputError naming files that cannot be used, ChangedError when a blob changes."""
    handle = open_pool(root, pool)
    name = PoolFolder(handle.pool_id).index
    mapper = mapper or local_workers(workers)

    def make(work: Work) -> None:
        mapper.get_ready()
        scratch = Scratch.open(root, PoolFolder(handle.pool_id).intermediate("index"), shared=mapper.shared)
        near = handle.at_hand(root)
        with released():
            index.build(work, near.pool, near.blobs, near.urls, near.readable, scratch, mapper, progress)

    return root.build(name, make, spec=handle.pool.identity(), inputs={"pool": handle.pool_id})


def build_holdout(
    root: Root, pool: Pool | PoolHandle, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """The pool's holdout, and its index if need be."""
    handle = open_pool(root, pool)
    indexed = build_index(root, handle, workers=workers, progress=progress)

    def make(work: Work) -> None:
        near = handle.at_hand(root)
        opened = _open_index(near, indexed)
        with released():
            holdout.build(work, near.pool, near.source(), opened, local_workers(workers).threads, progress)

    name = PoolFolder(handle.pool_id).holdout
    return root.build(name, make, spec=handle.pool.identity(), inputs={"index": indexed.manifest})


def build_sample(
    root: Root, pool: Pool | PoolHandle, *, workers: int | None = None, progress: Progress = silent
) -> Artifact:
    """The pool's sample for the tokenizer, and its index and holdout if need be."""
    handle = open_pool(root, pool)
    held = build_holdout(root, handle, workers=workers, progress=progress)

    def make(work: Work) -> None:
        near = handle.at_hand(root)
        opened = _open_index(near, build_index(root, handle))
        threads = local_workers(workers).threads
        sample.build(work, near.pool, near.source(), opened, HeldOut(held, opened), threads, progress)

    name = PoolFolder(handle.pool_id).sample
    return root.build(name, make, spec=handle.pool.identity(), inputs={"holdout": held.manifest})


def plan_arm(root: Root, pool: Pool | PoolHandle, arm: Arm, *, workers: int | None = None) -> ArmPlan:
    """What the arm takes, reads and needs. Builds index and holdout if need be.

    Raises InputError when the pool cannot serve the arm, or when the disk is too small for it.
    """
    handle = open_pool(root, pool)
    held = build_holdout(root, handle, workers=workers)
    opened = _open_index(handle, build_index(root, handle, workers=workers))
    selection = _select(handle, arm, opened, HeldOut(held, opened))
    name = arm_id(arm, handle.pool_id)
    reused = root.find(ArmFolder(name).text) is not None
    made = plan(
        handle.pool_id,
        name,
        opened,
        held.facts,
        selection,
        root.folder,
        local_workers(workers).count,
        reused,
    )
    if not reused:
        check_disk(name, made.disk_bytes, root.folder)
    return made


def build_arms(
    root: Root,
    pool: Pool | PoolHandle,
    arms: Sequence[Arm],
    *,
    workers: int | None = None,
    mapper: Workers | None = None,
    progress: Progress = silent,
) -> list[Artifact]:
    """The text of several arms of one pool, in a single pass over the pool's text for all that are not complete.

    Memory is bounded by a piece of a blob and a bucket of shards per worker, plus some 60 bytes a document. Raises
    InputError; ChangedError when a blob is no longer the indexed one.
    """
    if not arms:
        raise InputError("No arm is given: name at least one.")
    handle = open_pool(root, pool)
    mapper = mapper or local_workers(workers)
    held = build_holdout(root, handle, workers=workers, progress=progress)
    text_names = {arm: ArmFolder(arm_id(arm, handle.pool_id)).text for arm in arms}
    with ExitStack() as stack:
        for name in sorted(set(text_names.values())):
            stack.enter_context(locked(root.path(f".locks/pass.{name.replace('/', '.')}.lock")))
        missing = [arm for arm in text_names if root.find(text_names[arm]) is None]
        makers = _scatter(root, handle, missing, held, mapper, progress) if missing else {}
        return [
            root.build(
                text_names[arm],
                makers.get(arm, _unreachable),
                spec=arm.identity(),
                inputs={"pool": handle.pool_id, "holdout": held.manifest},
            )
            for arm in arms
        ]


def _unreachable(work: Work) -> None:
    raise AssertionError(f"{work.path} was complete a moment ago")


def _open_index(handle: PoolHandle, indexed: Artifact) -> Index:
    opened = Index(indexed.path)
    opened.blobs = list(handle.readable)
    return opened


def _select(handle: PoolHandle, arm: Arm, opened: Index, held: HeldOut) -> Selection:
    """What the arm takes, none of it from the holdout."""

    def choose(one: Arm, taken: np.ndarray) -> Selection:
        check_subset(one, handle.pool)
        within = opened.of_source(one.subset) if one.subset else None
        excluded = np.union1d(held.documents, taken) if len(taken) else held.documents
        return select(one, handle.pool, opened.scores, opened.rated, opened.tokens, excluded, within)

    selection = mix(arm, handle.pool, opened.scores, opened.tokens, choose) if arm.parts else choose(arm, NONE)
    if (count := len(selection.documents)) < RANKS:
        raise InputError(
            f"The arm {arm.name} takes {count} documents of {selection.population:,} that it may take, fewer than the {RANKS} "
            "row groups of a shard: raise its share."
        )
    return selection


def _scatter(
    root: Root, handle: PoolHandle, arms: Sequence[Arm], held: Artifact, mapper: Workers, progress: Progress
) -> dict[Arm, Callable[[Work], None]]:
    """Read the text once for all `arms`. Returns what remains to be done for each."""
    mapper.get_ready()
    handle = handle.at_hand(root)
    opened = _open_index(handle, build_index(root, handle))
    taken = HeldOut(held, opened)
    with released(), ThreadPoolExecutor(1) as side:
        known = side.submit(taken.known_texts)
        selections = {arm: _select(handle, arm, opened, taken) for arm in arms}
        for arm, selection in selections.items():
            check_disk(arm_id(arm, handle.pool_id), disk_bytes(opened, selection.documents), root.folder)
        spaces = {
            arm: Scratch.open(root, ArmFolder(arm_id(arm, handle.pool_id)).intermediate("runs"), shared=mapper.shared)
            for arm in arms
        }
        wanted = [(spaces[arm], selections[arm].documents, arm.deduplicate) for arm in arms]
        done = [set(spaces[arm].sizes()) for arm in arms]
        pieces = list(scatter.plan_pieces(opened, wanted, done))
        drop_pages(opened.scores, opened.tokens)
        texts = known.result()
    count = _Count("text", len(pieces), progress)
    jobs = [
        scatter.ScatterJob(
            handle.urls, handle.pool.text_column, tuple(batch), texts, handle.pool.skip_bad_files, mapper.threads
        )
        for batch in mapper.batches(pieces, lambda piece: of_batch(piece.reading.size))
    ]
    with released():
        for _ in mapper.run(scatter.scatter, jobs, count):
            pass
    arrived = {space: space.sizes() for space in spaces.values()}
    if any(piece.name not in arrived[target.scratch] for piece in pieces for target in piece.targets):
        raise InputError(
            f"What workers on other machines wrote is not under the root {root.url}: give one that all of them reach, "
            "az://container/prefix or a shared folder."
        )

    def maker(arm: Arm) -> Callable[[Work], None]:
        return lambda work: _emit(
            work, arm, handle, opened, selections[arm], spaces[arm], held, mapper, count.counters["retries"], progress
        )

    return {arm: maker(arm) for arm in arms}


def _emit(
    work: Work,
    arm: Arm,
    handle: PoolHandle,
    opened: Index,
    selection: Selection,
    scratch: Scratch,
    held: Artifact,
    mapper: Workers,
    retries: int,
    progress: Progress,
) -> None:
    """Write the shards of one arm from its runs, the holdout as the last shard, and the list of what the arm took."""
    with released():
        kept, rows, buckets = _lay_out(work, arm, opened, held, scratch, mapper)
    shards = len(rows)
    count = _Count("shards", shards, progress, shards - sum(map(emit.shards_of, buckets)))
    target = None if scratch.url else work
    jobs = [
        emit.EmitJob(scratch, target, tuple(batch), mapper.threads) for batch in mapper.batches(buckets, emit.shards_of)
    ]
    with ThreadPoolExecutor(2) as side:
        listed = side.submit(_write_documents, work, opened, selection.documents[kept])
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


def _lay_out(
    work: Work, arm: Arm, opened: Index, held: Artifact, scratch: Scratch, mapper: Workers
) -> tuple[np.ndarray, dict[str, int], list[emit.Bucket]]:
    """The runs laid out as shards: the ranks that are kept, rows of each shard, and the buckets still to write."""
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
        **left_out_facts(held.facts["bad_files"] | opened.left_out | damaged),
        **runs.counts,
        **_shared(arm, opened, held, runs.counts["holdout_texts_removed"]),
    )
    total = int(runs.lengths.sum(dtype=np.int64))
    limit = emit.bucket_bytes(total, mapper.count, remote=scratch.url is not None)
    return kept, rows, emit.plan_buckets(runs, dropped, kept, bounds, finished, limit)


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
        digest = write_texts(work.temporary(name), holdout.shard_of(held))
        work.finish(name, held.facts["documents"], digest)


def _write_documents(work: Work, opened: Index, documents: np.ndarray) -> int | None:
    """documents.parquet: rank, blob, row, score and tokens of what the arm took. Returns the total of tokens, if known."""
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
                pa.array(opened.scores[part]),
                pa.array(count.astype(np.int64), mask=count < 0),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    work.finish(DOCUMENTS, len(documents))
    return total if known else None


class _Count:
    """Adds up the ticks of jobs and reports progress."""

    def __init__(self, stage: str, total: int, progress: Progress, done: int = 0):
        self.stage, self.total, self.progress, self.done = stage, total, progress, done
        self.counters = {"bytes_read": 0, "requests": 0, "retries": 0, "rows": 0}

    def __call__(self, counted: dict[str, int]) -> None:
        self.done += counted["units"]
        for name in self.counters:
            self.counters[name] += counted.get(name, 0)
        self.progress(self.stage, self.done, self.total, self.counters)
