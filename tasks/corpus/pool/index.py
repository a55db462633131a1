"""The index of a pool: one row per document (token count, and the columns that arms ask for), one per row group, one per file;
never the text.

It is read from footers and columns of numbers and short texts alone, by coalesced ranges of many files at once. A document's number
is its place in the pool: files in the order of `sources.list_blobs`, then rows. Documents of the holdout's own place come last. A
document costs 4 bytes of tokens and 4 or 8 of each rating (see `column`), all memory-mapped.

    index/              files.parquet       blob, size, etag, rows, row_groups, problem ("" or why it was left out), footer
                        row_groups.parquet  file, row_group, rows, start, end (compressed text in the file), text_bytes (decoded)
                        tokens.npy          int32, -1 where unknown; only when the pool has a column for it
    columns/<column>/   one column, read when the first arm asks for it (see `column`)
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.left_out import left_out_facts, warn
from tasks.corpus.parquet.footer import pack_footer
from tasks.corpus.parquet.ranges import Range
from tasks.corpus.parquet.reading import Reading
from tasks.corpus.pool.column import (
    CODES,
    IDS,
    MOST_TEXTS,
    NOTHING,
    TEXTS,
    VALUES,
    Column,
    StoredColumn,
    Wanted,
    widened,
)
from tasks.corpus.pool.entries import (
    ENTRY,
    ROW_GROUPS,
    BlobToRead,
    ColumnEntry,
    Entry,
    IndexJob,
    Places,
    find_parts,
    index_blobs,
)
from tasks.corpus.pool.handle import PoolHandle
from tasks.corpus.pool.partitions import partition_keys
from tasks.corpus.pool.sources import address, is_held_out, places
from tasks.corpus.scratch import Scratch
from tasks.corpus.workers import BATCH, Count, Workers, of_batch
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.spec import Pool
from tasks.store.artifact import Work
from tasks.store.blobs import Blob

SOON_BYTES = 8 << 30
"""Total size of blobs whose columns (a hundredth of it) this process reads before other processes would have started."""

READ_AHEAD = 16
"""Parts of intermediate files in a remote store that are read before they are joined."""


def read(
    handle: PoolHandle,
    opened: "Index | None",
    columns: Sequence[Wanted],
    scratch: Scratch,
    workers: Workers,
    progress: Progress,
) -> int:
    """Read the blobs of a pool into the scratch space: of an index, `opened`, its `columns`; without one, its base too.

    Returns the number of retries.
    """
    there, todo, blobs = find_parts(scratch), [], handle.readable
    for number, blob in enumerate(blobs):
        if opened is not None and blob.name in opened.left_out:
            continue
        missing = tuple(wanted for wanted in columns if (number, wanted.key) not in there)
        if missing or (opened is None and (number, ENTRY) not in there):
            todo.append((number, blob, missing))
    footers = opened.footers([number for number, *_ in todo]) if opened is not None else {}
    count = Count("index", len(blobs), progress, len(blobs) - len(todo))
    keys = partition_keys(blobs)
    reads = [
        BlobToRead(number, blob, footers.get(number), missing, keys[number], handle.problems.get(blob.name, ""))
        for number, blob, missing in todo
    ]
    soon = len(reads) <= BATCH and sum(each.blob.size for each in reads) < SOON_BYTES
    jobs = [
        IndexJob(handle.pool, handle.urls, tuple(batch), scratch, workers.threads)
        for batch in workers.batches(reads, lambda each: of_batch(each.blob.size), soon)
    ]
    for _ in workers.run(index_blobs, jobs, count):
        pass
    return count.counters["retries"]


def _in_order(scratch: Scratch, parts: Places, numbers: Iterable[int], key: str) -> Iterator[memoryview]:
    """A part of some blobs from their intermediate files."""
    if scratch.url is None:
        yield from (scratch.mapped(*parts[number, key]) for number in numbers)
        return
    waiting: deque[Future[memoryview]] = deque()
    with ThreadPoolExecutor(4) as pool:
        for number in numbers:
            waiting.append(pool.submit(scratch.read, *parts[number, key]))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def join(work: Work, pool: Pool, blobs: Sequence[Blob], scratch: Scratch, retries: int) -> None:
    """Join the entries of all `blobs` into the files of the index. Raises InputError naming a file that cannot be used."""
    files: list[dict[str, Any]] = []
    groups, footers, names = [], [], set()
    tokens = Column(work.temporary("tokens.npy"), np.int32)
    known = total = 0
    parts = find_parts(scratch)
    entries = _in_order(scratch, parts, range(len(blobs)), ENTRY)
    for number, (blob, data) in enumerate(zip(blobs, entries, strict=True)):
        entry = Entry.from_bytes(data)
        files.append(
            {
                "blob": blob.name,
                "size": blob.size,
                "etag": blob.etag,
                "rows": len(entry.tokens),
                "row_groups": len(entry.groups),
                "problem": entry.problem,
                "bytes_read": entry.bytes_read,
                "requests": entry.requests,
            }
        )
        footers.append(entry.footer)
        groups.append(np.column_stack([np.full(len(entry.groups), number), entry.groups]))
        names.update(entry.columns if not is_held_out(blob) else ())
        tokens.append(entry.tokens)
        counted = entry.tokens[entry.tokens >= 0]
        known, total = known + len(counted), total + int(counted.sum(dtype=np.int64))
    documents = tokens.close()
    bad = [file for file in files if file["problem"]]
    if bad and not pool.skip_bad_files:
        for name in {name for (number, _), (name, *_) in parts.items() if files[number]["problem"]}:
            scratch.remove(name)  # a rerun looks again
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
        columns=sorted(names),
        tokens=total if known else None,
        documents_without_tokens=documents - known,
        bytes_read=sum(file["bytes_read"] for file in files),
        requests=sum(file["requests"] for file in files),
        retries=retries,
    )


def join_column(work: Work, pool: Pool, opened: "Index", wanted: Wanted, scratch: Scratch, parts: Places) -> None:
    """Join what was read of a column into its files. Documents of a file without it, or with a
    text where others have a number, have no value, and the file is named. Raises InputError when no file has it or it has too many texts.
    """
    used = [number for number, blob in enumerate(opened.blobs) if blob.name not in opened.left_out]
    rows, reasons = np.diff(opened.first), {}
    total = int(rows[used].sum())
    path, column, codes, is_text = work.temporary("values"), None, {}, False
    pending, blank = 0, False  # documents before the first file with a value: until then the column's type is not known
    for number, data in zip(used, _in_order(scratch, parts, used, wanted.key), strict=True):
        entry, count = ColumnEntry.from_bytes(data), int(rows[number])
        if not entry.reason and entry.holds_nothing and (column is None or is_text):  # of whichever type the others are
            if column is None:
                pending, blank = pending + count, True
            else:
                _append_nothing(column, count)
            continue
        if not entry.reason and column is not None and (entry.texts is not None) != is_text:
            entry.reason = (
                f"has {wanted.name!r} as {'a number' if entry.texts is None else 'text'}, unlike files before it"
            )
        values = None if entry.reason else _recoded(pool, wanted, entry, codes)
        if values is None and not is_held_out(opened.blobs[number]):  # the holdout's own texts need no ratings
            reasons[opened.blobs[number].name] = entry.reason
        if column is None and values is not None:
            column, is_text = Column(path, values.dtype.type, total), entry.texts is not None
            _append_nothing(column, pending)
        if column is None:
            pending += count
            continue
        if values is None:
            _append_nothing(column, count)
            continue
        if values.dtype != column.kind:
            if column.kind != np.float64:
                column.widen()
            values = widened(values)
        column.append(values)
    if column is None and blank and wanted.use == "values":
        column = Column(path, np.float64, total)
        _append_nothing(column, pending)
    if column is None:
        first, reason = next(iter(reasons.items()))
        raise InputError(
            f"None of the {len(used)} files of {pool.address} has a usable column {wanted.name!r} ({first} {reason}): ask for another."
        )
    documents = column.close()
    name = IDS if wanted.use == "ids" else CODES if is_text else VALUES
    path.rename(work.temporary(name))
    work.finish(name, documents, column.sha256)
    if name == CODES:
        pq.write_table(pa.table({"text": pa.array(codes, pa.string())}), work.temporary(TEXTS), compression="zstd")
        work.finish(TEXTS, len(codes))
    warn(f"The column {wanted.name} of {pool.name}", reasons)
    work.facts.update(column=wanted.name, documents=documents, **left_out_facts(reasons))


def _recoded(pool: Pool, wanted: Wanted, entry: ColumnEntry, codes: dict[str, int]) -> np.ndarray:
    """The values of an entry; codes are those of the whole column, which `codes` grows by."""
    if entry.texts is None:
        return entry.values
    for text in entry.texts:
        codes.setdefault(text, len(codes))
    if len(codes) > MOST_TEXTS:
        raise InputError(
            f"The column {wanted.name!r} of {pool.address} has more than {MOST_TEXTS:,} different texts: filter by a property, or give a "
            "list of ids."
        )
    return np.array([*(codes[text] for text in entry.texts), NOTHING], np.int32)[entry.values]  # -1 is the last


def _append_nothing(column: Column, count: int) -> None:
    nothing = np.nan if column.kind.kind == "f" else NOTHING if column.kind == np.int32 else 0
    column.append(np.full(count, nothing, column.kind))


class Index:
    """A finished index: arrays over documents and over row groups."""

    def __init__(self, folder: Path, columns: Mapping[str, StoredColumn] | None = None):
        table = pq.read_table(folder / "files.parquet", columns=["blob", "size", "etag", "rows", "problem"])
        self.folder = folder
        self.blobs = [
            Blob(name, size, etag)
            for name, size, etag in zip(*(table.column(c).to_pylist() for c in ("blob", "size", "etag")), strict=True)
        ]
        problems = zip(table.column("blob").to_pylist(), table.column("problem").to_pylist(), strict=True)
        self.left_out = {name: problem for name, problem in problems if problem}
        """Why each file that cannot be used was left out, by its name."""
        self.unrated: dict[str, str] = {}
        """Why the documents of a file lack one of the columns that were asked for, by its name; the first files of each column."""
        self.first = np.concatenate([[0], np.cumsum(table.column("rows").to_numpy())])
        """Number of the first document of each file, (files + 1,) int64."""
        groups = pq.read_table(folder / "row_groups.parquet")
        self.file, self.row_group, self.rows, self.start, self.end, self.text_bytes = (
            groups.column(name).to_numpy() for name in ROW_GROUPS
        )
        self.group_first = np.concatenate([[0], np.cumsum(self.rows)])
        """Number of the first document of each row group, (row groups + 1,) int64."""
        self.columns = dict(columns or {})
        """The columns of values that were asked for, by name."""
        tokens = folder / "tokens.npy"
        self.tokens = np.load(tokens, mmap_mode="r") if tokens.exists() else None

    def __len__(self) -> int:
        return int(self.first[-1])

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
