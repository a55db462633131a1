"""The index of a pool: one row per document (score, tokens), one per row group, one per file; never the text.

It is read from footers and score columns alone, by coalesced ranges of many files at once. A document's number is its place in
the pool: files in the order of `sources.list_blobs`, then rows. Documents of the holdout's own place come last. A document costs 8 bytes of score, 4 of tokens and usually 1 of ratings, all memory-mapped.

    files.parquet       blob, size, etag, rows, row_groups, problem ("" or why it was left out), footer
    row_groups.parquet  file, row_group, rows, start, end (compressed text in the file), text_bytes (decoded)
    scores.npy          float64, the composite; NaN without one
    rated.npy           unsigned integers, which score columns have a rating (`scores.rated_bits`)
    tokens.npy          int32, -1 where unknown; only when the pool has a column for it
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.left_out import left_out_facts, warn
from tasks.corpus.parquet.footer import (
    BadFile,
    chunk_range,
    find_column,
    number_column,
    pack_footer,
    read_footer,
    text_column,
)
from tasks.corpus.parquet.ranges import Parts, Range, coalesce, read_parts
from tasks.corpus.parquet.reading import Reading, decode
from tasks.corpus.pool.column import Column
from tasks.corpus.pool.scores import composite, rated_bits, wanted_scores
from tasks.corpus.pool.sources import address, is_held_out, places, read_as
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import BATCH, Tick, Workers, of_batch
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.spec import Pool
from tasks.store.artifact import Work
from tasks.store.blobs import Blob, Blobs
from tasks.store.named import open_named

FILES_IN_FLIGHT = 32
"""The client reads up to ten ranges of each at once. They are small, so latency decides."""

SOON_BYTES = 8 << 30
"""Total size of blobs whose scores (a hundredth of it) this process reads before other processes would have started."""

ROW_GROUPS = ("file", "row_group", "rows", "start", "end", "text_bytes")
UNKNOWN = -1


@dataclass(frozen=True)
class IndexJob:
    """Some blobs, with their numbers in the pool, read from `urls` as `open_named` takes them, to be indexed into `scratch`."""

    pool: Pool
    urls: Mapping[str, str]
    blobs: tuple[tuple[int, Blob], ...]
    scratch: Scratch
    threads: int


def index_blobs(job: IndexJob, tick: Tick) -> None:
    """Write one file per blob to the scratch space. A blob that cannot be used is recorded with its problem."""
    source = open_named(job.urls)
    with (
        ThreadPoolExecutor(FILES_IN_FLIGHT) as files,
        ThreadPoolExecutor(job.threads) as decoders,  # with a thread per file it takes four times the CPU
    ):

        def one(number: int, blob: Blob) -> int:
            try:
                pool = read_as(job.pool, blob)
                fetched = _fetch(source, blob, pool)
                entry = decoders.submit(_decode, blob, fetched, pool).result()
            except BadFile as error:
                entry = _Entry(error.reason)
            job.scratch.write(_name(number), [entry.to_bytes()])
            return len(entry.scores)

        before = dict(vars(source.counters))
        futures = [files.submit(one, number, blob) for number, blob in job.blobs]
        try:
            for future in futures:
                rows = future.result()
                now = dict(vars(source.counters))
                tick({"units": 1, "rows": rows} | {name: now[name] - before[name] for name in now})
                before = now
        except BaseException:
            files.shutdown(wait=False, cancel_futures=True)
            raise


def build(
    work: Work,
    pool: Pool,
    listed: Sequence[Blob],
    urls: Mapping[str, str],
    blobs: Sequence[Blob],
    scratch: Scratch,
    workers: Workers,
    progress: Progress,
) -> None:
    """Write the index of the `listed` blobs to a work directory. They are read as `blobs` under `urls`.

    Raises InputError naming files that cannot be used.
    """
    done = scratch.sizes()
    todo = [(number, blob) for number, blob in enumerate(blobs) if _name(number) not in done]
    finished, counters = len(blobs) - len(todo), {"bytes_read": 0, "requests": 0, "retries": 0, "rows": 0}

    def tick(counted: dict[str, int]) -> None:
        nonlocal finished
        finished += counted["units"]
        for name in counters:
            counters[name] += counted[name]
        progress("index", finished, len(blobs), counters)

    soon = len(todo) <= BATCH and sum(blob.size for _, blob in todo) < SOON_BYTES
    jobs = [
        IndexJob(pool, urls, tuple(batch), scratch, workers.threads)
        for batch in workers.batches(todo, lambda item: of_batch(item[1].size), soon)
    ]
    for _ in workers.run(index_blobs, jobs, tick):
        pass
    _reduce(work, pool, listed, scratch, counters["retries"])
    scratch.clear()


@dataclass
class _Entry:
    """What the index keeps of one blob."""

    problem: str = ""
    footer: bytes = b""
    groups: np.ndarray = None
    scores: np.ndarray = None
    rated: np.ndarray = None
    tokens: np.ndarray = None
    bytes_read: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        if self.groups is None:
            self.groups = np.zeros((0, len(ROW_GROUPS) - 1), np.int64)
            self.scores, self.rated, self.tokens = np.zeros(0), np.zeros(0, np.uint8), np.zeros(0, np.int32)

    def to_bytes(self) -> bytes:
        """A line of JSON, then the footer, the row groups, the scores, the token counts and the ratings."""
        counts = {k: getattr(self, k) for k in ("problem", "bytes_read", "requests")}
        sizes = {"footer": len(self.footer), "row_groups": len(self.groups), "rows": len(self.scores)}
        sizes["rated"] = self.rated.dtype.str
        arrays = (self.groups.tobytes(), self.scores.tobytes(), self.tokens.tobytes(), self.rated.tobytes())
        return b"".join((json.dumps([counts, sizes]).encode(), b"\n", self.footer, *arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> "_Entry":
        counts, sizes = json.loads(data[: (at := data.index(b"\n") + 1)])
        footer, at = data[at : at + sizes["footer"]], at + sizes["footer"]
        width = len(ROW_GROUPS) - 1
        groups = np.frombuffer(data, np.int64, sizes["row_groups"] * width, at).reshape(-1, width)
        scores = np.frombuffer(data, np.float64, sizes["rows"], at + groups.nbytes)
        tokens = np.frombuffer(data, np.int32, sizes["rows"], at + groups.nbytes + scores.nbytes)
        at += groups.nbytes + scores.nbytes + tokens.nbytes
        rated = np.frombuffer(data, sizes["rated"], sizes["rows"], at)
        return cls(footer=footer, groups=groups, scores=scores, rated=rated, tokens=tokens, **counts)


def _name(number: int) -> str:
    return f"{number:08d}.entry"


@dataclass(frozen=True)
class _Fetched:
    """What was read of one blob: its footer, parsed and as bytes; its row groups (as in ROW_GROUPS, without the file); the columns
    of numbers; the weights of those that are scores; and the ranges that hold them."""

    footer: pq.FileMetaData
    footer_bytes: bytes
    groups: list[tuple[int, ...]]
    numbers: Sequence[str]
    weights: dict[str, float]
    parts: Parts
    requests: int


def _fetch(source: Blobs, blob: Blob, pool: Pool) -> _Fetched:
    """The footer and the columns of numbers of one blob. Raises BadFile."""

    requests = 0

    def fetch(ranges: Sequence[Range]) -> Parts:
        nonlocal requests
        requests += len(ranges)
        return read_parts(source, blob, ranges)

    footer, footer_bytes, end = read_footer(blob.name, blob.size, lambda r: fetch([r])[0][1])
    text = text_column(blob.name, footer, pool.text_column)
    weights = wanted_scores(blob.name, footer, pool)
    numbers = {name: number_column(blob.name, footer, name) for name in weights}
    if pool.token_count_column and find_column(blob.name, footer, pool.token_count_column) is not None:
        numbers[pool.token_count_column] = number_column(blob.name, footer, pool.token_count_column)
    if footer.num_rows == 0:
        raise BadFile(blob.name, "is empty (0 rows)")

    groups, ranges = [], []
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group).num_rows
        place = chunk_range(blob.name, blob.size, footer, group, text)
        groups.append(
            (group, rows, place.start, place.end, footer.row_group(group).column(text).total_uncompressed_size)
        )
        if rows:
            ranges += [chunk_range(blob.name, blob.size, footer, group, column) for column in numbers.values()]
    parts = [end, *fetch(coalesce(r for r in ranges if r.start < end[0]))]
    if sum(rows for _, rows, *_ in groups) != footer.num_rows:
        raise BadFile(blob.name, f"is damaged (its row groups do not add up to {footer.num_rows:,} rows)")
    return _Fetched(footer, footer_bytes, groups, list(numbers), weights, parts, requests)


def _decode(blob: Blob, fetched: _Fetched, pool: Pool) -> _Entry:
    """The entry of one blob. Raises BadFile."""
    rows = sum(count for _, count, *_ in fetched.groups)
    present = [group for group, count, *_ in fetched.groups if count]
    table = None
    if fetched.numbers:
        table = decode(blob.name, blob.size, fetched.footer, fetched.parts, present, fetched.numbers)
    values = {column: table.column(column).to_numpy().astype(np.float64) for column in fetched.weights}
    tokens = np.full(rows, UNKNOWN, np.int32)
    if pool.token_count_column in fetched.numbers:
        column = table.column(pool.token_count_column).to_numpy().astype(np.float64)
        known = (column >= 0) & (column < 2**31)
        tokens[known] = column[known].astype(np.int32)
    return _Entry(
        footer=fetched.footer_bytes,
        groups=np.array(fetched.groups, np.int64),
        scores=composite(values, fetched.weights, rows),
        rated=rated_bits(values, pool, rows),
        tokens=tokens,
        bytes_read=sum(len(data) for _, data in fetched.parts),
        requests=fetched.requests,
    )


def _reduce(work: Work, pool: Pool, blobs: Sequence[Blob], scratch: Scratch, retries: int) -> None:
    """Join the entries of all blobs into the files of the index."""
    sizes = scratch.sizes()
    files: list[dict[str, Any]] = []
    groups, footers = [], []
    scores = Column(work.temporary("scores.npy"), np.float64)
    kind = rated_bits({}, pool, 0).dtype.type
    rated = Column(work.temporary("rated.npy"), kind)
    tokens = Column(work.temporary("tokens.npy"), np.int32)
    known = total = unrated = 0
    for number, blob in enumerate(blobs):
        entry = _Entry.from_bytes(bytes(scratch.read(_name(number), 0, sizes[_name(number)])))
        files.append(
            {
                "blob": blob.name,
                "size": blob.size,
                "etag": blob.etag,
                "rows": len(entry.scores),
                "row_groups": len(entry.groups),
                "problem": entry.problem,
                "bytes_read": entry.bytes_read,
                "requests": entry.requests,
            }
        )
        footers.append(entry.footer)
        groups.append(np.column_stack([np.full(len(entry.groups), number), entry.groups]))
        scores.append(entry.scores)
        rated.append(entry.rated.astype(kind, copy=False))  # a bad file has none, of any width
        tokens.append(entry.tokens)
        unrated += int(np.isnan(entry.scores).sum())
        counted = entry.tokens[entry.tokens >= 0]
        known, total = known + len(counted), total + int(counted.sum(dtype=np.int64))
    documents = scores.close()
    rated.close()
    tokens.close()
    bad = [file for file in files if file["problem"]]
    if bad and not pool.skip_bad_files:
        for number, file in enumerate(files):
            if file["problem"]:
                scratch.remove(_name(number))  # a rerun looks again
        more = f" (and {len(bad) - 1} more of {len(blobs)} files)" if len(bad) > 1 else ""
        raise InputError(
            f"{address(pool, bad[0]['blob'])} {bad[0]['problem']}{more}: repair or remove it, or set skip_bad_files."
        )
    left_out = {file["blob"]: file["problem"] for file in bad}
    warn(f"The index of {pool.name}", left_out)
    if not documents:
        raise InputError(f"{', '.join(places(pool).values())} holds no documents in {len(blobs)} files: check the URL.")

    table = pa.Table.from_pylist(files).append_column("footer", pa.array(footers, pa.large_binary()))
    pq.write_table(table, work.temporary("files.parquet"), compression="zstd", row_group_size=64)
    work.finish("files.parquet")
    rows = np.concatenate(groups)
    columns = {name: pa.array(rows[:, i], pa.int64()) for i, name in enumerate(ROW_GROUPS)}
    pq.write_table(pa.table(columns), work.temporary("row_groups.parquet"), compression="zstd")
    work.finish("row_groups.parquet")
    work.finish("scores.npy", documents)
    work.finish("rated.npy", documents)
    if known:
        work.finish("tokens.npy", documents)
    work.facts.update(
        documents=documents,
        files=len(files) - len(bad),
        **left_out_facts(left_out),
        row_groups=len(rows),
        raw_bytes=sum(file["size"] for file in files if not file["problem"]),
        text_bytes=int(rows[:, 5].sum()),
        text_bytes_compressed=int((rows[:, 4] - rows[:, 3]).sum()),
        unrated_documents=unrated,
        tokens=total if known else None,
        documents_without_tokens=documents - known,
        bytes_read=sum(file["bytes_read"] for file in files),
        requests=sum(file["requests"] for file in files),
        retries=retries,
    )


class Index:
    """A finished index: arrays over documents and over row groups."""

    def __init__(self, folder: Path):
        table = pq.read_table(folder / "files.parquet", columns=["blob", "size", "etag", "rows", "problem"])
        self.folder = folder
        self.blobs = [
            Blob(name, size, etag)
            for name, size, etag in zip(*(table.column(c).to_pylist() for c in ("blob", "size", "etag")), strict=True)
        ]
        problems = zip(table.column("blob").to_pylist(), table.column("problem").to_pylist(), strict=True)
        self.left_out = {name: problem for name, problem in problems if problem}
        """Why each file that cannot be used was left out, by its name."""
        self.first = np.concatenate([[0], np.cumsum(table.column("rows").to_numpy())])
        """Number of the first document of each file, (files + 1,) int64."""
        groups = pq.read_table(folder / "row_groups.parquet")
        self.file, self.row_group, self.rows, self.start, self.end, self.text_bytes = (
            groups.column(name).to_numpy() for name in ROW_GROUPS
        )
        self.group_first = np.concatenate([[0], np.cumsum(self.rows)])
        """Number of the first document of each row group, (row groups + 1,) int64."""
        self.scores = np.load(folder / "scores.npy", mmap_mode="r")
        self.rated = np.load(folder / "rated.npy", mmap_mode="r")
        tokens = folder / "tokens.npy"
        self.tokens = np.load(tokens, mmap_mode="r") if tokens.exists() else None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def documents(self) -> int:
        """Those of the pool itself, without the holdout's own place."""
        return int(self.first[sum(not is_held_out(blob) for blob in self.blobs)])

    def of_source(self, name: str) -> tuple[int, int]:
        """Numbers of the documents of a source: the first one, and the one after the last."""
        files = [number for number, blob in enumerate(self.blobs) if blob.name.startswith(f"{name}/")]
        return int(self.first[files[0]]), int(self.first[files[-1] + 1])

    def place(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """File numbers and rows within the file of documents."""
        file = np.searchsorted(self.first, documents, side="right") - 1
        return file, documents - self.first[file]

    def reading(self, groups: Sequence[int], footer: bytes) -> Reading:
        """A reading of some row groups of one file, given by their numbers in the index."""
        file = int(self.file[groups[0]])
        return Reading(
            self.blobs[file],
            footer,
            tuple(int(self.row_group[g]) for g in groups),
            tuple(int(self.group_first[g] - self.first[file]) for g in groups),
            tuple(int(self.rows[g]) for g in groups),
            tuple(Range(int(self.start[g]), int(self.end[g])) for g in groups),
        )

    def footers(self, files: Sequence[int]) -> dict[int, bytes]:
        """The packed footer of each of some files."""
        reader = pq.ParquetFile(self.folder / "files.parquet")
        wanted: dict[int, list[int]] = {}
        for number in files:
            wanted.setdefault(number // 64, []).append(number)
        footers = {}
        for group, numbers in wanted.items():
            column = reader.read_row_group(group, columns=["footer"]).column("footer")
            footers.update((number, pack_footer(column[number % 64].as_py())) for number in numbers)
        return footers
