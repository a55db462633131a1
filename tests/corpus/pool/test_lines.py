"""JSON lines as a source: read as the same documents as Parquet, or refused by file and line."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus import lines
from tasks.corpus.parquet.footer import BadFile
from tasks.corpus.prepare import build_arms, plan_arm
from tasks.errors import InputError, StoreError
from tasks.records.layout import DOCUMENTS
from tasks.spec import Arm, Pool
from tasks.store.access import open_blobs
from tasks.store.root import Root
from tests.corpus.corpora import SCORES, arm_and_holdout, rated_texts, write_corpus

PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": lambda data: (
        gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    ),  # two members
    ".jsonl.zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}
SIZES = {"holdout_documents": 20, "holdout_fraction": 0.2}


def as_lines(table: pa.Table) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist())


def converted(data: bytes, folder: Path, name: str = "a.jsonl") -> pa.Table:
    rows = lines.write_columns(name, len(data), lambda start, end: memoryview(data)[start:end], folder / "out.parquet")
    table = pq.read_table(folder / "out.parquet")
    assert len(table) == rows
    return table


def best(folder: Path, source: str, workers: int = 1) -> dict[str, float]:
    """The best half of a pool and the score of each text, with those of the holdout left out."""
    (made,) = build_arms(Root(folder), Pool(source=source, **SIZES), [Arm(share=0.5)], workers=workers)
    *shards, _ = sorted(made.path.glob("shard_*"))
    texts = [text for shard in shards for text in pq.read_table(shard)["text"].to_pylist()]
    return dict(zip(texts, pq.read_table(made.path / DOCUMENTS)["score"].to_pylist(), strict=True))


@pytest.mark.parametrize("where", ["folder", "container"])
@pytest.mark.parametrize("ending", PACKED)
def test_json_lines_are_the_same_documents_as_parquet(
    ending: str, where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 10_000)
    tables = [rated_texts(120, f"part {number}") for number in range(3)]
    (tmp_path / "lines/dump=7").mkdir(parents=True)
    for number, table in enumerate(tables):
        (tmp_path / f"lines/dump=7/part-{number}{ending}").write_bytes(PACKED[ending](as_lines(table)))
    source = str(tmp_path / "lines")
    if where == "container":
        source = f"az://{request.getfixturevalue('azure')}"
        for path in (tmp_path / "lines/dump=7").iterdir():
            open_blobs(source).upload(path, f"dump=7/{path.name}")
    wanted = {text: row for table in tables for row in table.to_pylist() if (text := row["text"])}
    trained, held = arm_and_holdout(tmp_path, source)
    assert sorted(trained + held) == sorted(wanted)
    taken = best(tmp_path / "root", source)
    assert {text: wanted[text][SCORES[0]] for text in taken} == taken
    left = sorted(wanted[text][SCORES[0]] for text in wanted.keys() - taken.keys())
    assert min(taken.values()) >= left[-21]  # but for the holdout
    plan = plan_arm(Root(tmp_path / "root"), Pool(source=source, **SIZES), Arm(select="all", where="dump == 7"))
    assert plan.filtered_documents == 0 and plan.population == 340


def test_a_killed_conversion_goes_on_and_processes_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(4):
        (tmp_path / f"raw/{number}.jsonl").write_bytes(as_lines(rated_texts(60, f"part {number}")))
    source, root = str(tmp_path / "raw"), tmp_path / "root"
    (tmp_path / "raw/3.jsonl").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"/raw/3\.jsonl has no JSON object in line 1 .*repair or remove it"):
        best(root, source, workers=2)
    asked = []
    whole = lines.write_columns
    monkeypatch.setattr(
        "tasks.corpus.pool.columnar.write_columns", lambda name, *rest: asked.append(name) or whole(name, *rest)
    )
    with pytest.raises(InputError):
        best(root, source)
    assert asked == ["3.jsonl"]


def test_a_file_that_cannot_be_read_is_left_out_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/good.jsonl.gz").write_bytes(gzip.compress(as_lines(rated_texts(100))))
    (tmp_path / "raw/cut.jsonl.gz").write_bytes(gzip.compress(as_lines(rated_texts(100, "cut")))[:-900])
    pool = Pool(source=str(tmp_path / "raw"), skip_bad_files=True, **SIZES)
    plan = plan_arm(Root(tmp_path / "root"), pool, Arm(), workers=1)
    assert plan.pool_documents == 100 and "is damaged" in plan.bad_files["cut.jsonl.gz"]


def test_bad_files_at_the_ends_of_a_pool_are_left_out_and_nulls_have_any_type(tmp_path: Path) -> None:
    """The first file is empty, the last is damaged, and a field without any value goes with texts before and after it."""
    source = tmp_path / "lines"
    source.mkdir()
    (source / "a.jsonl").write_bytes(b"")
    for name, lang in (("b", None), ("c", "en"), ("d", None)):
        table = rated_texts(60, name)
        (source / f"{name}.jsonl").write_bytes(
            as_lines(table.append_column("lang", pa.array([lang] * 60, pa.string())))
        )
    (source / "e.jsonl").write_bytes(b'{"text": "x"}\n{"text": "and then nothing\n')
    pool = Pool(source=str(source), skip_bad_files=True, **SIZES)
    (made,) = build_arms(Root(tmp_path), pool, [Arm(where='lang == "en"', share=1.0)], workers=1)
    texts = [t for shard in sorted(made.path.glob("shard_*"))[:-1] for t in pq.read_table(shard)["text"].to_pylist()]
    assert texts and set(texts) <= set(rated_texts(60, "c")["text"].to_pylist())


def test_whole_numbers_of_any_length_stay_apart(tmp_path: Path) -> None:
    ids = [123456789012345678901234567890, 123456789012345678901234567891, 18446744073709551615, 7]
    table = converted(b"".join(b'{"text": "a", "id": %d}\n' % each for each in ids), tmp_path)
    assert table["id"].to_pylist() == [str(each) for each in ids]


def test_a_store_that_is_away_is_no_damaged_file(tmp_path: Path) -> None:
    def away(start: int, end: int) -> memoryview:
        raise StoreError("the store does not answer")

    with pytest.raises(StoreError):
        lines.write_columns("a.jsonl", 100, away, tmp_path / "out.parquet")


def test_a_place_of_several_kinds_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "raw", files=1)
    (tmp_path / "raw/a.jsonl").write_bytes(as_lines(rated_texts(60)))
    with pytest.raises(InputError, match=r"holds both a\.jsonl and part_000\.parquet"):
        plan_arm(Root(tmp_path / "root"), Pool(source=str(tmp_path / "raw")), Arm())
    trained, held = arm_and_holdout(tmp_path, f"{tmp_path}/raw/*.jsonl", holdout_documents=10)
    assert len(trained + held) == 60


def test_objects_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="nested too deeply in line 1"):
        converted(b'{"a":' * 1_000 + b"1" + b"}" * 1_000, tmp_path)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "a"', "line 3 .*delimiter"),
        (b'["text"]', r"line 3, but '\[\"text\"\]'"),
        (b'"text"', "line 3, but"),
        (b'{"text": "\\ud800"}', "line 3 .*surrogates"),
        (b'{"text": "\xff"}', "line 3 .*utf-8"),
        (b'{"a":' * 100_000, "line 3"),
    ],
)
def test_a_line_that_is_no_object_is_named(bad: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=f"has no JSON object in {reason}"):
        converted(b'{"text": "one"}\n\n' + bad + b'\n{"text": "two"}\n', tmp_path)


def test_fields_of_all_kinds_are_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1)  # a block for each line
    written = [
        b'\xef\xbb\xbf{"text": "2024-01-01 00:00:00", "score": 3, "meta": {"lang": "de", "by": {"whom": null}}, "tags": ["a"]}\r',
        b"   ",
        b'{"score": 2.5, "text": "b\\u0000", "late": true, "id": 18446744073709551615, "mixed": 1}',
        b'{"score": NaN, "text": null, "late": 2, "id": 7, "mixed": "x", "tags": "not a list"}',
    ]
    table = converted(b"\n".join(written), tmp_path)
    assert table.to_pydict() == {
        "text": ["2024-01-01 00:00:00", "b\0", None],
        "score": [3.0, 2.5, pytest.approx(np.nan, nan_ok=True)],
        "meta.lang": ["de", None, None],
        "meta.by.whom": [None, None, None],
        "late": [None, 1, 2],
        "id": [None, "18446744073709551615", "7"],
        "mixed": [None, "1", "x"],
        "tags": [None, None, "not a list"],
    }
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_an_object_that_is_null_is_no_column(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    records = [
        {"a": 1, "meta": None},
        {"a": 2, "meta": {"q": None}},
        {"a": 3, "meta": {"q": 4.5}},
        {"a": 4, "meta": None},
    ]
    table = converted(b"".join(json.dumps(record).encode() + b"\n" for record in records), tmp_path)
    assert table.to_pydict() == {"a": [1, 2, 3, 4], "meta.q": [None, None, 4.5, None]}


VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=9)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.dictionaries(st.sampled_from(["a", "b", "c.d"]), VALUES), min_size=1, max_size=12).filter(any),
    block=st.sampled_from([1, 40, 1 << 20]),
    ending=st.sampled_from(sorted(PACKED)),
)
def test_each_value_stands_where_it_stood(records, block: int, ending: str, tmp_path: Path) -> None:
    data = PACKED[ending](b"".join(json.dumps(record).encode() + b"\n" for record in records))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "BLOCK_BYTES", block)
        rows = converted(data, tmp_path, f"a{ending}").to_pylist()
    for row, record in zip(rows, records, strict=True):
        for name in ("a", "b", "c.d"):
            found, given = row.get(name), record.get(name)
            assert (found is None) == (given is None)
            assert given is None or found == given or isinstance(found, str)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"text": "some words " * 300, "score": 1.5}).encode() + b"\n"
    size, asked = 300 * len(line), []

    def read(start: int, end: int) -> memoryview:
        asked.append(end - start)
        return memoryview(line * ((end - start) // len(line)))

    monkeypatch.setattr(lines, "REQUEST_BYTES", size)
    monkeypatch.setattr(lines, "BLOCK_BYTES", size)
    tracemalloc.start()
    assert lines.write_columns("a.jsonl", 30 * size, read, tmp_path / "out.parquet") == 30 * 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == [size] * 30 and peak < 10 * size
