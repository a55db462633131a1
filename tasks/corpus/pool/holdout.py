"""The holdout: documents set aside for evaluation, the same for every arm of a pool.

Blocks of consecutive rows of a row group are picked by a hash of (seed, blob name, block) until there are enough documents.
They represent the pool, each of its sources by its share of the blocks, and only their row groups are read. A block has at most
1,000 rows, and few enough that there are at least 64 blocks: neighbours resemble each other, and the bootstrap over blocks needs
many. A text that occurs twice counts once. A pool with a place of its own for the holdout has its blocks from there.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.corpus.left_out import LeftOut, left_out_facts, warn
from tasks.corpus.parquet.footer import BadFile, chunk_range, text_column, top_level
from tasks.corpus.parquet.pages import Memory
from tasks.corpus.parquet.ranges import Parts, Range, fetch_ahead
from tasks.corpus.parquet.reading import Reading, take_texts
from tasks.corpus.parquet.shards import RANKS, row_groups
from tasks.corpus.parquet.texts import KnownTexts, digests, lengths
from tasks.corpus.parquet.views import Views
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.sources import folder_of, is_held_out, place_numbers, place_of
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.records import draws
from tasks.records.layout import DOCUMENTS
from tasks.spec import Pool
from tasks.store.artifact import Artifact, Work
from tasks.store.blobs import Blob, Blobs

BLOCK_ROWS = 1000
BLOCKS = 64
DUMP = "dump"
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("block", pa.int64()),
        ("row_group", pa.int32()),
        ("bytes", pa.int64()),
        ("source", pa.string()),
        ("text", pa.large_string()),
    ]
)
"""A document between reading and description. `number` is its number in the pool, `block` that of the first one of its block."""


def wanted_documents(pool: Pool, index: Index) -> int:
    """Size of the pool's holdout, or the most that it has if it comes from elsewhere. Raises InputError if that is too small."""
    documents = index.documents
    if pool.holdout:
        return _enough(pool, min(pool.holdout_documents, len(index) - documents))
    count = min(pool.holdout_documents, int(documents * pool.holdout_fraction))
    if count < RANKS:
        raise InputError(
            f"The pool {pool.name} of {documents:,} documents leaves {count} for the holdout, fewer than {RANKS}: "
            "raise holdout_documents or holdout_fraction, or take a larger pool."
        )
    return count


def _enough(pool: Pool, documents: int) -> int:
    if documents < RANKS:
        raise InputError(
            f"The holdout {pool.holdout} has {documents} different documents with text, fewer than {RANKS}: name more, or raise "
            "holdout_documents."
        )
    return documents


def pick_blocks(pool: Pool, index: Index, block_rows: int) -> np.ndarray:
    """All blocks that the holdout may take, in picking order, int64 (blocks, 3): row group, first row, rows."""
    per_group = -(-index.rows // block_rows)
    group = np.repeat(np.arange(len(index.rows)), per_group)
    within = np.arange(len(group)) - np.repeat(np.cumsum(per_group) - per_group, per_group)
    first = within * block_rows
    rows = np.minimum(block_rows, index.rows[group] - first)
    file = index.file[group]
    start_of_file = np.searchsorted(file, np.arange(len(index.blobs)))
    number = np.arange(len(group)) - start_of_file[file]
    names = [hashlib.sha256(f"{pool.seed}/{blob.name}".encode()).digest()[:8] for blob in index.blobs]
    key = np.array([int.from_bytes(name, "little") for name in names], np.uint64)[file]
    order = np.argsort(key ^ draws.random_bits(pool.seed, draws.HOLDOUT, number), kind="stable")
    place = place_numbers(pool, index.blobs)[file]
    if pool.holdout:
        order = order[place[order] == place.max()]
    return np.column_stack([group, first, rows])[order[_evenly(place[order])]]


def _evenly(places: np.ndarray) -> np.ndarray:
    """Positions that put blocks of these places (n,) in an order whose every beginning has the same part of each, int64 (n,)."""
    count = np.bincount(places)
    before = np.empty(len(places))
    before[np.argsort(places, kind="stable")] = np.concatenate([np.arange(n) for n in count])
    return np.argsort((before + 0.5) / count[places], kind="stable")


def build(work: Work, pool: Pool, source: Blobs, index: Index, threads: int, progress: Progress) -> None:
    """Write documents.parquet into a work directory. Raises InputError for unusable text."""
    count = wanted_documents(pool, index)
    block_rows = max(1, min(BLOCK_ROWS, -(-count // BLOCKS)))
    blocks = pick_blocks(pool, index, block_rows)
    tables, found, next_block, empty, repeated = [], 0, 0, 0, 0
    seen: set[bytes] = set()
    left_out = LeftOut(source, pool.skip_bad_files)
    while found < count and next_block < len(blocks):
        total = np.cumsum(blocks[next_block:, 2])
        end = next_block + int(np.searchsorted(total, count - found)) + 1
        for table in _read(pool, source, index, blocks[next_block:end], threads, left_out):
            rows = table.num_rows
            table = table.filter(pc.greater(table.column("bytes"), 0))
            with_text = table.num_rows
            table = table.filter(_unseen(table, seen))
            empty, repeated = empty + rows - with_text, repeated + with_text - table.num_rows
            tables.append(table.slice(0, count - found))
            found += tables[-1].num_rows
            progress("holdout", found, count, vars(source.counters))
        next_block = end
    filled = [table for table in tables if table.num_rows]
    filled.sort(key=lambda table: table.column("number")[0].as_py())  # blocks are apart, numbers within one ascend
    documents = pa.concat_tables(filled or [SCHEMA.empty_table()])
    if pool.holdout:
        count = _enough(pool, documents.num_rows)
    elif documents.num_rows < count:
        if not documents.num_rows:
            raise InputError(
                f"None of the {index.documents:,} documents of the pool {pool.name} has a text in {pool.text_column!r}: set text_column "
                "to the column that has them."
            )
        raise InputError(
            f"The {index.documents:,} documents of the pool {pool.name} have only {documents.num_rows:,} different texts, and the "
            f"holdout alone takes {count:,}: take a pool with more of them, or lower holdout_documents."
        )
    warn(f"The holdout of {pool.name}", left_out.reasons)
    documents = _describe(documents, index)
    _write_documents(work, documents)
    work.facts.update(
        documents=count,
        clusters=len(np.unique(documents.column("cluster").to_numpy())),
        bytes=int(documents.column("bytes").to_numpy().sum()),
        empty_texts=empty,
        repeated_texts=repeated,
        bytes_read=source.counters.bytes_read,
        requests=source.counters.requests,
        retries=source.counters.retries,
        **left_out_facts(left_out.reasons),
        **_by_source(pool, documents),
    )


def _by_source(pool: Pool, documents: pa.Table) -> dict[str, dict[str, int]]:
    """How many documents come from each source of a pool that has several."""
    if pool.holdout or not pool.sources:
        return {}
    counts = pc.value_counts(documents.column("source")).to_pylist()
    return {"documents_of": dict.fromkeys(pool.urls, 0) | {each["values"]: each["counts"] for each in counts}}


def _unseen(documents: pa.Table, seen: set[bytes]) -> np.ndarray:
    """Whether each text is met for the first time, bool (n,); `seen` has the digests of those that were met."""
    unseen = np.zeros(documents.num_rows, bool)
    for i, mark in enumerate(digests(documents.column("text").combine_chunks())):
        unseen[i] = mark.tobytes() not in seen
        seen.add(mark.tobytes())
    return unseen


def _write_documents(work: Work, documents: pa.Table) -> None:
    repeated = ["blob", "source"]
    path = work.temporary(DOCUMENTS)
    codecs = {name: "zstd" for name in documents.column_names} | {"text": "none"}  # read again at once, and small
    pq.write_table(documents, path, compression=codecs, row_group_size=1024, use_dictionary=repeated)
    work.finish(DOCUMENTS, documents.num_rows)


def _read(
    pool: Pool, source: Blobs, index: Index, blocks: np.ndarray, threads: int, left_out: LeftOut
) -> list[pa.Table]:
    """The documents of each block, in the order of `blocks`. A row group with several blocks is read once."""
    footers = index.footers(sorted({int(index.file[group]) for group in blocks[:, 0]}))
    memory = Memory()
    wanted: dict[int, list[int]] = {}
    for number, group in enumerate(blocks[:, 0].tolist()):
        wanted.setdefault(group, []).append(number)

    def items() -> Iterator[tuple[tuple, Blob, Sequence[Range]]]:
        for group, numbers in wanted.items():
            reading = index.reading([group], footers[int(index.file[group])])
            dump = None if _label(pool, reading.blob) else _dump_range(reading)
            if dump is not None:
                reading = replace(reading, beside=(dump,))
            yield (reading, group, numbers, dump is not None), reading.blob, reading.requests()

    def handle(item: tuple, parts: Parts) -> dict[int, pa.Table]:
        reading, group, numbers, dump = item
        try:
            texts = reading.texts(parts, pool.text_column, memory)
            dumps = reading.table(parts, [DUMP]).column(DUMP) if dump else None
            return {number: block(reading, group, texts, dumps, *blocks[number, 1:].tolist()) for number in numbers}
        except BadFile as error:
            left_out.add(error)
            return {number: SCHEMA.empty_table() for number in numbers}

    def block(
        reading: Reading, group: int, all_texts: Views, dumps: pa.ChunkedArray | None, first: int, rows: int
    ) -> pa.Table:
        texts = take_texts(reading, all_texts, np.arange(first, first + rows)).gather()
        sources = pa.array([_label(pool, reading.blob)] * rows, pa.string())
        if dumps is not None:
            sources = dumps.slice(first, rows).combine_chunks().cast(pa.string()).fill_null("")
        columns = [
            np.arange(rows) + index.group_first[group] + first,
            np.full(rows, index.group_first[group] + first),
            np.full(rows, index.row_group[group], np.int32),
            lengths(texts),
            sources,
            texts,
        ]
        return pa.table(columns, schema=SCHEMA)

    found: dict[int, pa.Table] = {}
    for tables in fetch_ahead(source, items(), handle, threads=threads):
        found |= tables
    return [found[number] for number in range(len(blocks))]


def _label(pool: Pool, blob: Blob) -> str:
    """What verdicts call the source of a blob's documents: one of several sources, else the folder; "" where `dump` says it."""
    return place_of(pool, blob) if pool.sources and not is_held_out(blob) else folder_of(pool, blob)


def _dump_range(reading: Reading) -> Range | None:
    """Where the column `dump` of the first row group lies; None for a file without one."""
    footer = reading.parsed()
    if DUMP not in top_level(footer):
        return None
    try:
        column = text_column(footer, DUMP)
        return chunk_range(reading.blob.size, footer, reading.groups[0], column)
    except BadFile:
        return None


def _describe(documents: pa.Table, index: Index) -> pa.Table:
    """The columns of documents.parquet, from document numbers and texts."""
    number = documents.column("number").to_numpy()
    file, row = index.place(number)
    names = np.array([blob.name for blob in index.blobs], object)
    return pa.table(
        {
            "document": pa.array(np.arange(len(number)), pa.int64()),
            "blob": pa.array(names[file], pa.string()),
            "row": pa.array(row, pa.int64()),
            "row_group": documents.column("row_group"),
            "cluster": pa.array(np.unique(documents.column("block").to_numpy(), return_inverse=True)[1], pa.int32()),
            "bytes": documents.column("bytes"),
            "source": documents.column("source").cast(pa.string()),
            "text": documents.column("text"),
        }
    )


class HeldOut:
    """A finished holdout, opened."""

    def __init__(self, artifact: Artifact, index: Index):
        table = pq.read_table(artifact.path / DOCUMENTS, columns=["blob", "row"])
        number = {blob.name: i for i, blob in enumerate(index.blobs)}
        files = np.array([number[name] for name in table.column("blob").to_pylist()], np.int64)
        self.numbers = index.first[files] + table.column("row").to_numpy()
        """Numbers of its documents in the pool, in its order, int64 (n,)."""
        self.documents = np.union1d(self.numbers, np.arange(index.documents, len(index)))
        """Numbers in the pool that no arm may take, ascending, int64 (n,): the documents, and all of the holdout's own place."""
        self._file = artifact.path / DOCUMENTS

    def known_texts(self) -> KnownTexts:
        """The texts, to be recognized elsewhere in the pool."""
        file = pq.ParquetFile(self._file)
        return KnownTexts.of(_read_texts(file, [group]) for group in range(file.num_row_groups))


def shard_of(artifact: Artifact) -> Iterator[Views]:
    """The texts of a finished holdout in order, as the row groups of a shard, a few at a time."""
    file = pq.ParquetFile(artifact.path / DOCUMENTS)
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    for start, end in pairwise(row_groups(file.metadata.num_rows)):
        first, last = np.searchsorted(ends, [start, end - 1], side="right").tolist()
        texts = _read_texts(file, range(first, last + 1))
        skipped = start - (int(ends[first - 1]) if first else 0)
        yield Views.of(texts.slice(skipped, end - start))


def _read_texts(file: pq.ParquetFile, groups: Sequence[int]) -> pa.LargeStringArray:
    column = file.read_row_groups(groups, ["text"]).column("text")
    return column.cast(pa.large_string()).combine_chunks()
