"""Texts read from pages and written to pages, against readers that others wrote."""

import io
import resource
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.arm.writer import PAGE_BYTES, write_texts
from tasks.corpus.parquet.pages import DATA, DATA_V2, PLAIN, RLE, Chunk, DamagedPage, UnknownPage, read_chunk
from tasks.corpus.parquet.thrift import I32, STRUCT
from tasks.corpus.parquet.views import INLINE, WINDOW, Views
from tasks.store.artifact import sha256_file
from tests.corpus.parquet.headers import write_struct, write_varint

TEXTS = st.lists(
    st.none() | st.text(max_size=40) | st.sampled_from(["", "a" * INLINE, "b" * (INLINE + 1)]), max_size=80
)


def chunks(table: pa.Table, **options: object) -> list[Chunk]:
    """What pyarrow writes of a column `text`, one chunk for each row group."""
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return chunks_of(out)


def chunks_of(out: io.BytesIO) -> list[Chunk]:
    """The first column of a file, one chunk for each row group."""
    footer = pq.read_metadata(out)
    found = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        column = group.column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        data = out.getbuffer()[start : start + column.total_compressed_size]
        optional = footer.schema.column(0).max_definition_level > 0
        found.append(Chunk(data, column.compression, group.num_rows, optional, column.total_uncompressed_size))
    return found


@settings(max_examples=200, deadline=None)
@given(
    texts=TEXTS,
    repeat=st.integers(1, 5),
    codec=st.sampled_from(["none", "snappy", "zstd"]),
    version=st.sampled_from(["1.0", "2.0"]),
    dictionary=st.booleans(),
    limits=st.tuples(st.sampled_from([1, 100, 1 << 20]), st.sampled_from([1, 100, 1 << 20]), st.integers(1, 50)),
    required=st.booleans(),
)
def test_texts_are_those_that_pyarrow_wrote(texts, repeat, codec, version, dictionary, limits, required):
    texts = [text or "" if required else text for text in texts] * repeat
    page, dictionary_page, rows = limits
    table = pa.table({"text": texts}, pa.schema([pa.field("text", pa.string(), nullable=not required)]))
    written = chunks(
        table,
        compression=codec,
        data_page_version=version,
        use_dictionary=dictionary,
        data_page_size=page,
        dictionary_pagesize_limit=dictionary_page,
        write_batch_size=7,
        row_group_size=rows,
    )
    read = Views.concat(map(read_chunk, written))
    assert read.bytes() == [(text or "").encode() for text in texts]
    assert read.invalid() is None
    assert read.gather().to_pylist() == [text or "" for text in texts]


@settings(max_examples=200, deadline=None)
@given(
    texts=TEXTS | st.lists(st.none() | st.just("always the same text"), max_size=80),
    repeat=st.integers(1, 30),
    codec=st.sampled_from(["uncompressed", "snappy", "zstd"]),
    rows=st.integers(1, 400),
    page=st.sampled_from([50, 1 << 20]),
)
def test_texts_are_those_that_polars_wrote(texts, repeat, codec, rows, page):
    out = io.BytesIO()
    frame = pl.DataFrame({"text": texts * repeat}, {"text": pl.String})
    frame.write_parquet(out, compression=codec, row_group_size=rows, data_page_size=page)
    read = Views.concat(map(read_chunk, chunks_of(out)))
    assert read.bytes() == [(text or "").encode() for text in texts * repeat]


def test_a_packed_run_that_claims_to_be_long_takes_no_room():
    page = [(1, I32, 8), (2, I32, PLAIN), (3, I32, RLE), (4, I32, RLE)]
    levels = write_varint((1 << 22) << 1 | 1) + bytes(1 << 22)  # four million groups of eight nulls, for eight rows
    body = len(levels).to_bytes(4, "little") + levels
    header = write_struct([(1, I32, DATA), (2, I32, len(body)), (3, I32, len(body)), (5, STRUCT, page)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_chunk(Chunk(memoryview(header + body), "UNCOMPRESSED", 8, True, len(body))).bytes() == [b""] * 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
    ],
)
def test_what_only_a_general_reader_knows_is_left_to_it(options: dict):
    (written,) = chunks(pa.table({"text": ["a", "bc"] * 20}), **options)
    with pytest.raises(UnknownPage):
        read_chunk(written)


SOUND = [
    chunk
    for codec in ("none", "snappy", "zstd")
    for version in ("1.0", "2.0")
    for chunk in chunks(
        pa.table({"text": [f"text {i % 9} " + "word " * (i % 5) for i in range(60)] + [None] * 4}),
        compression=codec,
        data_page_version=version,
        data_page_size=200,
        dictionary_pagesize_limit=80,
        write_batch_size=10,
    )
]


@settings(max_examples=400, deadline=None)
@given(
    which=st.integers(0, len(SOUND) - 1),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    cut=st.sampled_from([0, 0, 1, 50]),
)
def test_damaged_pages_are_texts_or_damaged(which: int, changes: list[tuple[int, int]], cut: int):
    sound = SOUND[which]
    data = bytearray(sound.data)
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: len(data) - cut]
    try:
        read = read_chunk(Chunk(memoryview(data), sound.codec, sound.rows, sound.optional, sound.size))
    except (DamagedPage, UnknownPage):
        return
    assert len(read) == sound.rows
    assert sum(map(len, read.bytes())) == read.sizes.sum()


def test_repetition_levels_of_a_flat_column_are_left_alone():
    repeated, levels = write_varint(3 << 1) + b"\0", write_varint(3 << 1) + b"\1"
    packed = pa.Codec("zstd").compress(b"".join(b"\1\0\0\0" + text for text in (b"a", b"b", b"c")), asbytes=True)
    body = repeated + levels + packed
    page = [(1, I32, 3), (2, I32, 0), (3, I32, 3), (4, I32, PLAIN), (5, I32, len(levels)), (6, I32, len(repeated))]
    size = len(repeated + levels) + 15
    header = write_struct([(1, I32, DATA_V2), (2, I32, size), (3, I32, len(body)), (8, STRUCT, page)])
    assert read_chunk(Chunk(memoryview(header + body), "ZSTD", 3, True, size)).bytes() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("more", [0, 4])
def test_a_page_inflates_to_what_its_header_says(more: int):
    body = b"".join(len(text).to_bytes(4, "little") + text for text in (b"abc" * 20, b"d"))
    packed = pa.Codec("snappy").compress(body, asbytes=True)
    page = [(1, I32, 2), (2, I32, PLAIN), (3, I32, RLE), (4, I32, RLE)]
    header = write_struct([(1, I32, DATA), (2, I32, len(body) + more), (3, I32, len(packed)), (5, STRUCT, page)])
    chunk = Chunk(memoryview(header + packed), "SNAPPY", 2, False, len(body) + more)
    if more:
        with pytest.raises(DamagedPage, match="another size"):
            read_chunk(chunk)
    else:
        assert read_chunk(chunk).bytes() == [b"abc" * 20, b"d"]


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.lists(st.text(max_size=60), min_size=1, max_size=40), min_size=1, max_size=9))
def test_what_is_written_others_read(groups: list[list[str]], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("written") / "texts.parquet"
    digest = write_texts(path, [Views.of(pa.array(group, pa.large_string())) for group in groups])
    assert digest == sha256_file(path)
    file = pq.ParquetFile(path)
    assert file.schema_arrow == pa.schema([("text", pa.string())])
    assert [file.read_row_group(i).column("text").to_pylist() for i in range(file.num_row_groups)] == groups
    texts = [text for group in groups for text in group]
    assert pl.read_parquet(path)["text"].to_list() == texts


def test_pages_are_cut_and_read_by_other_engines(tmp_path: Path):
    rng = np.random.default_rng(0)
    texts = ["é" * int(n) for n in rng.integers(1, PAGE_BYTES // 16, 200)] + ["x" * (3 * PAGE_BYTES), "", "y"]
    path = tmp_path / "texts.parquet"
    write_texts(path, [Views.of(pa.array(texts, pa.large_string()))] * 2)
    column = pq.read_metadata(path).row_group(1).column(0)
    assert column.total_uncompressed_size > 8 * PAGE_BYTES
    assert pq.read_table(path).column("text").to_pylist() == texts * 2
    assert [row[0] for row in duckdb.sql(f"select text from read_parquet('{path}')").fetchall()] == texts * 2
    assert pl.scan_parquet(path).filter(pl.col("text") == "y").collect().height == 2


def test_views_beyond_the_reach_of_an_offset():
    size = WINDOW + (1 << 20)
    data = np.zeros(size, np.uint8)  # never touched but at its ends: it costs no memory
    data[:20], data[-20:] = ord("a"), ord("z")
    starts, sizes = np.array([0, WINDOW - 8, size - 20]), np.array([20, 16, 20])
    views = Views.over(pa.py_buffer(data), starts, sizes)
    assert views.bytes() == [b"a" * 20, b"\0" * 16, b"z" * 20]
    with pytest.raises(ValueError, match=r"a text of 1,073,741,824 bytes"):
        Views.over(pa.py_buffer(data), np.array([0]), np.array([WINDOW]))


def test_the_first_text_that_is_not_utf8_is_found():
    values = [b"fine", "ä".encode() * 9, b"long enough to lie elsewhere \xff", b"\xff"]
    views = Views.of(pa.array(values, pa.large_binary()))
    assert views.invalid() == 2
    assert views[np.array([1, 3])].invalid() == 1
    assert views[np.array([0, 1])].invalid() is None
