"""The holdout: documents set aside for evaluation, the same for every arm of a pool.

Blocks of consecutive rows of a row group are picked by a hash of (seed, blob name, block) until there are enough documents.
They represent the pool, and only their row groups are read. A block has at most 1,000 rows, and few enough that there are at
least 64 blocks: neighbours resemble each other, and the bootstrap over blocks needs many.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.corpus import draws
from tasks.corpus.left_out import LeftOut, left_out_facts, warn
from tasks.corpus.parquet.footer import BadFile, chunk_range, text_column, top_level
from tasks.corpus.parquet.pages import Memory
from tasks.corpus.parquet.ranges import Parts, Range, fetch_ahead
from tasks.corpus.parquet.reading import Reading, take_texts
from tasks.corpus.parquet.shards import RANKS, row_groups
from tasks.corpus.parquet.texts import KnownTexts, lengths
from tasks.corpus.parquet.views import Views
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.scores import quantiles
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.records.layout import DOCUMENTS
from tasks.spec import Pool
from tasks.store.artifact import Artifact, Work
from tasks.store.blobs import Blob, Blobs

BLOCK_ROWS = 1000
BLOCKS = 64
DECILES = 10
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


def wanted_documents(pool: Pool, documents: int) -> int:
    """Size of the holdout of a pool of `documents`. Raises InputError if the pool is too small for one."""
    count = min(pool.holdout_documents, int(documents * pool.holdout_fraction))
    if count < RANKS:
        raise InputError(
            f"The pool {pool.name} of {documents:,} documents leaves {count} for the holdout, fewer than {RANKS}: "
            "raise holdout_documents or holdout_fraction, or take a larger pool."
        )
    return count


def pick_blocks(index: Index, seed: int, block_rows: int) -> np.ndarray:
    """All blocks of a pool in picking order, int64 (blocks, 3): row group, first row, rows."""
    per_group = -(-index.rows // block_rows)
    group = np.repeat(np.arange(len(index.rows)), per_group)
    within = np.arange(len(group)) - np.repeat(np.cumsum(per_group) - per_group, per_group)
    first = within * block_rows
    rows = np.minimum(block_rows, index.rows[group] - first)
    file = index.file[group]
    start_of_file = np.searchsorted(file, np.arange(len(index.blobs)))
    number = np.arange(len(group)) - start_of_file[file]
    names = [hashlib.sha256(f"{seed}/{blob.name}".encode()).digest()[:8] for blob in index.blobs]
    key = np.array([int.from_bytes(name, "little") for name in names], np.uint64)[file]
    order = np.argsort(key ^ draws.random_bits(seed, draws.HOLDOUT, number), kind="stable")
    return np.column_stack([group, first, rows])[order]


def build(work: Work, pool: Pool, source: Blobs, index: Index, threads: int, progress: Progress) -> None:
    """Write documents.parquet into a work directory. Raises InputError for unusable text."""
    count = wanted_documents(pool, len(index))
    block_rows = max(1, min(BLOCK_ROWS, -(-count // BLOCKS)))
    blocks = pick_blocks(index, pool.seed, block_rows)
    tables, found, next_block, empty = [], 0, 0, 0
    left_out = LeftOut(source.url, pool.skip_bad_files)
    while found < count and next_block < len(blocks):
        total = np.cumsum(blocks[next_block:, 2])
        end = next_block + int(np.searchsorted(total, count - found)) + 1
        for table in _read(pool, source, index, blocks[next_block:end], threads, left_out):
            if without := pc.sum(pc.equal(table.column("bytes"), 0)).as_py():
                table = table.filter(pc.greater(table.column("bytes"), 0))
                empty += without
            tables.append(table.slice(0, count - found))
            found += tables[-1].num_rows
            progress("holdout", found, count, vars(source.counters))
        next_block = end
    filled = [table for table in tables if table.num_rows]
    filled.sort(key=lambda table: table.column("number")[0].as_py())  # blocks are apart, numbers within one ascend
    documents = pa.concat_tables(filled)
    if documents.num_rows < count:
        raise InputError(
            f"The pool {pool.name} holds only {documents.num_rows:,} documents with text: {count:,} wanted."
        )
    warn(f"The holdout of {pool.name}", left_out.reasons)
    documents = _describe(documents, index)
    _write_documents(work, documents)
    work.facts.update(
        documents=count,
        clusters=len(np.unique(documents.column("cluster").to_numpy())),
        bytes=int(documents.column("bytes").to_numpy().sum()),
        empty_texts=empty,
        bytes_read=source.counters.bytes_read,
        requests=source.counters.requests,
        retries=source.counters.retries,
        **left_out_facts(left_out.reasons),
        scores=quantiles(documents.column("score").to_numpy()),
        unrated_documents=int(np.isnan(documents.column("score").to_numpy()).sum()),
    )


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
            dump = _dump_range(reading)
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
        folder = PurePosixPath(reading.blob.name).parent.as_posix()
        sources = pa.array([folder if folder != "." else ""] * rows, pa.string())
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


def _dump_range(reading: Reading) -> Range | None:
    """Where the column `dump` of the first row group lies; None for a file without one or in a folder, which names the source."""
    name, footer = reading.blob.name, reading.metadata()
    if "/" in name or DUMP not in top_level(footer):
        return None
    try:
        column = text_column(name, footer, DUMP)
        return chunk_range(name, reading.blob.size, footer, reading.groups[0], column)
    except BadFile:
        return None


def _describe(documents: pa.Table, index: Index) -> pa.Table:
    """The columns of documents.parquet, from document numbers and texts. A document without a score is of decile -1."""
    number = documents.column("number").to_numpy()
    file, row = index.place(number)
    score = index.scores[number]
    rated = int(np.isfinite(score).sum())
    decile = np.full(len(number), -1)
    decile[np.argsort(score, kind="stable")[:rated]] = np.arange(rated) * DECILES // max(1, rated)  # NaN comes last
    names = np.array([blob.name for blob in index.blobs], object)
    return pa.table(
        {
            "document": pa.array(np.arange(len(number)), pa.int64()),
            "blob": pa.array(names[file], pa.string()),
            "row": pa.array(row, pa.int64()),
            "row_group": documents.column("row_group"),
            "cluster": pa.array(np.unique(documents.column("block").to_numpy(), return_inverse=True)[1], pa.int32()),
            "score": pa.array(score, pa.float64()),
            "decile": pa.array(decile, pa.int8()),
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
        self.documents = np.sort(index.first[files] + table.column("row").to_numpy())
        """Their numbers in the pool, ascending, int64 (n,)."""
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
