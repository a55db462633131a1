"""Parquet files as people have them: by every writer at hand, in all its codecs, encodings and cuts, drawn by a seed.

python -m tests.corpus.parquet.writers 2000     prepares 2,000 files, and compares every document with what pyarrow reads
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.prepare import build_arms
from tasks.records.layout import DOCUMENTS
from tasks.spec import Arm, Pool
from tasks.store.root import Root

try:
    import fastparquet
except ImportError:  # a package with a compiler of its own, for this alone
    fastparquet = None

ALPHABET = 'abcdefghij     éßя中\n\x00"\\🤖'


def table(rng: random.Random, number: int) -> pa.Table:
    """Up to 200 documents: texts of all lengths, few or many equal ones, nulls; a rating; columns of other types beside."""
    rows = rng.randint(1, 200)
    lengths = [rng.choice((0, 3, 12, 13, 50, 500, rng.randint(0, 3_000))) for _ in range(rows)]
    texts: list[str | None] = [
        f"{number} {row} " + "".join(rng.choices(ALPHABET, k=n)) for row, n in enumerate(lengths)
    ]
    if rng.random() < 0.4:  # few different ones: a dictionary
        texts = [rng.choice(texts[:5]) for _ in texts]
    lacking = rng.choice((0, 0, 0.1, 0.9))
    texts = [None if rng.random() < lacking else rng.choice((text, text, text, "")) for text in texts]
    ratings = [None if rng.random() < lacking else float(rng.randint(0, 5)) for _ in range(rows)]
    kind = rng.choice((pa.float64(), pa.float32(), pa.int32(), pa.int64()))
    return pa.table(
        {
            "id": pa.array([f"id-{number}-{row}" for row in range(rows)]),
            "text": pa.array(texts, pa.string()),
            "rating": pa.array(ratings, pa.float64()).cast(kind),
            "seen": pa.array([datetime(2024, 1, 1 + row % 28) for row in range(rows)], pa.timestamp("us")),
            "embedding": pa.array([[0.5] * (row % 4) for row in range(rows)], pa.list_(pa.float32())),
        }
    )


def by_arrow(rng: random.Random, given: pa.Table, path: Path) -> str:
    codec = rng.choice(("none", "snappy", "gzip", "brotli", "lz4", "zstd"))
    texts = rng.choice((pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())))
    encoding = rng.choice((None, "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"))
    if pa.types.is_dictionary(texts):  # which pyarrow writes in these encodings and does not read
        encoding = None
    required = not given["text"].null_count and rng.random() < 0.5
    given = given.set_column(1, pa.field("text", texts, nullable=not required), given["text"].cast(texts))
    options = {
        "compression": codec,
        "version": rng.choice(("1.0", "2.4", "2.6")),
        "data_page_version": rng.choice(("1.0", "2.0")),
        "data_page_size": rng.choice((64, 1_000, 1 << 20)),
        "write_batch_size": rng.choice((1, 10, 1_024)),
        "use_dictionary": encoding is None and rng.random() < 0.6,
        "dictionary_pagesize_limit": rng.choice((64, 1 << 20)),
        "column_encoding": {"text": encoding} if encoding else None,
        "write_statistics": rng.random() < 0.5,
        "write_page_index": rng.random() < 0.3,
        "write_page_checksum": rng.random() < 0.3,
        "store_schema": rng.random() < 0.5,
        "use_deprecated_int96_timestamps": rng.random() < 0.5,
    }
    cuts = sorted(rng.choices(range(len(given) + 1), k=rng.choice((0, 0, 1, 4))))
    with pq.ParquetWriter(path, given.schema, **options) as writer:
        for start, end in zip([0, *cuts], [*cuts, len(given)], strict=True):
            writer.write_table(given.slice(start, end - start))  # some are empty
    return f"pyarrow {codec} {encoding or options['use_dictionary']} v{options['data_page_version']}"


def by_polars(rng: random.Random, given: pa.Table, path: Path) -> str:
    codec = rng.choice(("uncompressed", "snappy", "gzip", "brotli", "lz4", "zstd"))
    size, page = rng.choice((None, 1, 7, 64)), rng.choice((None, 100, 5_000))
    pl.from_arrow(given).write_parquet(path, compression=codec, row_group_size=size, data_page_size=page)
    return f"polars {codec}"


def by_duckdb(rng: random.Random, given: pa.Table, path: Path) -> str:
    codec = rng.choice(("uncompressed", "snappy", "gzip", "brotli", "lz4", "lz4_raw", "zstd"))
    version, limit = rng.choice(("v1", "v2")), rng.choice((1, 20, 100_000))
    with duckdb.connect() as connection:
        connection.register("given", given)
        connection.execute(
            f"copy given to '{path}' (format parquet, codec '{codec}', parquet_version '{version}', dictionary_size_limit {limit})"
        )
    return f"duckdb {codec} {version}"


def by_fastparquet(rng: random.Random, given: pa.Table, path: Path) -> str:
    codec = rng.choice((None, "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"))
    frame = given.drop_columns(["embedding"]).to_pandas()
    if rng.random() < 0.3:
        frame["text"] = frame["text"].astype("category")
    cuts = [0, *sorted(rng.sample(range(1, len(frame)), k=min(2, len(frame) - 1)))] if rng.random() < 0.5 else [0]
    options = {"times": rng.choice(("int96", "int64")), "stats": rng.choice((True, False, "auto"))}
    fastparquet.write(str(path), frame, compression=codec, row_group_offsets=cuts, write_index=False, **options)
    return f"fastparquet {codec}"


WRITERS: list[Callable[[random.Random, pa.Table, Path], str]] = [by_arrow, by_polars, by_duckdb]
if fastparquet is not None:
    WRITERS.append(by_fastparquet)


def compare(folder: Path, files: int, seed: int) -> Counter[str]:
    """Prepare an arm of everything from files of all writers, drawn by `seed`; returns how many files each kind had.

    Raises AssertionError for a document that is not what pyarrow reads in that row.
    """
    rng = random.Random(seed)
    (folder / "raw").mkdir()
    kinds, of_file = Counter[str](), {}
    for number in range(files):
        path = folder / "raw" / f"{number:05d}.parquet"
        of_file[path.name] = rng.choice(WRITERS)(rng, table(rng, number), path)
        kinds[of_file[path.name]] += 1
    pool = Pool(source=str(folder / "raw"), holdout_documents=20, token_count_column=None, score={"rating": 1.0})
    (made,) = build_arms(Root(folder / "root"), pool, [Arm(name="all", select="all", population=())])
    *shards, last = sorted(made.path.glob("shard_*.parquet"))
    held = set(pq.read_table(last)["text"].to_pylist())
    texts = [text for shard in shards for text in pq.read_table(shard)["text"].to_pylist()]
    places = pq.read_table(made.path / DOCUMENTS, columns=["blob", "row", "score"]).to_pylist()
    found = {(at["blob"], at["row"]): (text, at["score"]) for at, text in zip(places, texts, strict=True)}
    for name, kind in of_file.items():
        read = pq.read_table(folder / "raw" / name, columns=["text", "rating"])
        ratings = read["rating"].to_pylist()
        for row, (text, rating) in enumerate(zip(read["text"].cast(pa.string()).to_pylist(), ratings, strict=True)):
            ours, score = found.pop((name, row), ("", None))
            assert (ours or None) == (None if text in held else text or None), (name, kind, row, ours, text)
            wanted = np.nan if rating is None else rating
            assert score is None or np.array_equal(score, wanted, equal_nan=True), (name, kind, row, score, rating)
    assert not found
    return kinds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        total, start = int(sys.argv[1]), random.randrange(1 << 32)
        counted = compare(Path(made), total, start)
        print(f"{total} files of {len(counted)} kinds, all equal to what pyarrow reads (seed {start})")
        print("\n".join(f"{count:6} {kind}" for kind, count in sorted(counted.items())))
