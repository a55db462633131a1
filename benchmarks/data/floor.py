"""Where the time goes: the CPU that each step of a preparation needs alone, against what the whole takes.

The floor is what reading, decoding, ordering, writing and reading runs, encoding and hashing cost together, spread over all
cores with nothing waiting for anything: the least for a preparation that sorts more text than it holds. The store's own CPU
is part of the least time here, as it runs on the same cores.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import corpus
from benchmarks.data.measure import measure, serving
from benchmarks.data.peers import COLUMNS
from tasks.corpus.arm.writer import write_texts
from tasks.corpus.disk import write_all
from tasks.corpus.parquet.footer import chunk_range, column_index, read_footer
from tasks.corpus.parquet.pages import Chunk, Memory, read_chunk
from tasks.corpus.parquet.ranges import coalesce, read_parts
from tasks.corpus.parquet.shards import ordered_groups
from tasks.corpus.parquet.views import Views
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob

SHARD = 14_000
NUMBERS = [*COLUMNS, "token_count"]
"""What the index reads of each document."""

MEMORY = Memory()
"""For the text of a file, used again."""


def main(arguments: argparse.Namespace) -> None:
    """Measure the steps and the whole in turn, `repeats` times; print medians."""
    folder = arguments.folder.absolute()
    raw = corpus.write(folder / "store", arguments.files, arguments.rows)
    cores = len(os.sched_getaffinity(0))
    log = folder / "requests.tsv"
    runs: list[dict[str, float]] = []
    walls, cpus, stores = [], [], []
    with serving(folder / "store", arguments.delay, log) as store:
        for _ in range(arguments.repeats):
            url, paths = f"az://{raw.name}", sorted(raw.glob("*.parquet"))
            before = store.cpu()
            spent = {"read the scores": read(url, paths, NUMBERS), "read the text": read(url, paths, ["text"])}
            stores.append(store.cpu() - before)
            spent["decode the scores"] = decode_numbers(paths)
            out = folder / "floor"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            with ThreadPoolExecutor(cores) as pool:
                for one in pool.map(lambda path: steps(path, out), paths):  # noqa: B023
                    for name, seconds in one.items():
                        spent[name] = spent.get(name, 0.0) + seconds
            shutil.rmtree(out)
            runs.append(spent)
            whole = measure("ours", f"az://{raw.name}", folder / "out", 1.0, log)
            walls.append(whole.wall)
            cpus.append(whole.cpu)
    medians = {name: median(run[name] for run in runs) for name in runs[0]}
    floor, served = sum(medians.values()), median(stores)
    least = (floor + served) / cores
    print("| step alone | CPU s |\n| --- | --- |")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} |")
    print(f"| floor | {floor:.2f} |\n| the whole preparation | {median(cpus):.2f} |")
    print(
        f"\nthe store's CPU: {served:.2f} s; wall: least {least:.2f} s on {cores} cores, the whole {median(walls):.2f} s"
    )
    print(f"the whole against the floor: CPU {median(cpus) / floor:.2f}, wall {median(walls) / least:.2f}")


def read(url: str, paths: list[Path], columns: Sequence[str]) -> float:
    """CPU seconds of fetching the ranges of some columns of all files and dropping them."""
    source = open_blobs(url)

    def one(blob: Blob, path: Path) -> int:
        footer, _ = read_footer(blob.name, blob.size, lambda r: source.read_range(blob, r.start, r.end))
        places = [
            chunk_range(blob.size, footer, group, column_index(footer, name))
            for group in range(len(footer.rows))
            for name in columns
        ]
        return sum(len(data) for _, data in read_parts(source, blob, coalesce(places)))

    began = time.process_time()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, source.list(suffix=".parquet"), paths))
    return time.process_time() - began


def decode_numbers(paths: list[Path]) -> float:
    """CPU seconds of decoding the columns of numbers from the page cache."""
    began = time.process_time()
    for path in paths:
        pq.read_table(path, columns=NUMBERS, use_threads=False)
    return time.process_time() - began


def steps(path: Path, out: Path) -> dict[str, float]:
    """CPU seconds of this thread for each step of one file."""
    spent: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        spent[name] = spent.get(name, 0.0) + time.thread_time() - began

    data = path.read_bytes()
    footer = pq.read_metadata(pa.BufferReader(data))
    MEMORY.reset(
        sum(footer.row_group(group).column(0).total_uncompressed_size for group in range(footer.num_row_groups))
    )
    pages = []
    for group in range(footer.num_row_groups):
        column = footer.row_group(group).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        chunk = memoryview(data)[start : start + column.total_compressed_size]
        with timed("decode"):
            rows = footer.row_group(group).num_rows
            whole = Chunk(chunk, column.compression, rows, True, column.total_uncompressed_size)
            pages.append(read_chunk(whole, MEMORY))
    with timed("decode"):
        texts = Views.concat(pages)
    with timed("order"):
        ordered = texts[np.random.default_rng(0).permutation(len(texts))].gather()
    with timed("write runs"), (out / f"{path.stem}.run").open("wb", buffering=0) as file:
        write_all(file, ordered.buffers()[2])
    with timed("read runs"), (out / f"{path.stem}.run").open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 20))
        while file.readinto(buffer):
            pass
    with timed("order, encode, hash and write shards"):
        texts = Views.of(ordered)
        for start in range(0, len(texts), SHARD):
            rows = np.arange(start, min(start + SHARD, len(texts)))
            write_texts(out / f"{path.stem}-{start}.parquet", ordered_groups(texts, rows))
    return spent
