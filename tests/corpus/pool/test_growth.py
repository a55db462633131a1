"""An index that grows: columns are read when the first arm asks for them, and nothing else is."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks.corpus.pool import entries
from tasks.corpus.pool.column import PART, UNITS, StoredColumn, Wanted, narrowed, widened
from tasks.corpus.pool.handle import open_pool
from tasks.corpus.pool.index import Index
from tasks.corpus.prepare import build_holdout, build_index, plan_arm
from tasks.errors import InputError
from tasks.records.layout import PoolFolder
from tasks.spec import Arm, Pool
from tasks.store.root import Root
from tests.corpus.corpora import SCORES

ROWS, FILES = 20_000, 3


def write(folder: Path) -> dict[str, int]:
    """Files of more than a megabyte, which are not read whole; the bytes of each of their columns."""
    folder.mkdir(parents=True)
    rng, sizes = np.random.default_rng(0), {}
    for number in range(FILES):
        columns = {"text": [f"{number}/{row} {rng.integers(1 << 62)}" for row in range(ROWS)]}
        columns |= {name: rng.normal(size=ROWS) for name in SCORES}
        columns["embedding"] = rng.normal(size=2 * ROWS).view(np.complex128).real.astype(np.float32)
        columns["dump"] = pa.array([["a", "b", None][row % 3] for row in range(ROWS)]).dictionary_encode()
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=ROWS // 2)
        footer = pq.read_metadata(folder / f"{number}.parquet")
        for group in range(footer.num_row_groups):
            for place in range(footer.num_columns):
                chunk = footer.row_group(group).column(place)
                sizes[chunk.path_in_schema] = sizes.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    return sizes


def read_since(log: Path, before: int) -> tuple[int, int]:
    """Bytes and lines of the log of reads from a line on."""
    lines = log.read_text().splitlines()
    return sum(int(end) - int(start) for _, start, end in (line.split("\t") for line in lines[before:])), len(lines)


def test_an_index_grows_by_the_columns_that_it_lacks(range_server: Path, tmp_path: Path) -> None:
    sizes = write(tmp_path / "store/raw")
    root, pool = Root(tmp_path / "root"), Pool(source="az://raw", holdout_documents=64)
    arm = Arm(score={SCORES[0]: 1.0}, population=())
    build_holdout(root, pool, workers=1)
    before = read_since(range_server, 0)[1]
    plan_arm(root, pool, arm, workers=1)
    found, before = read_since(range_server, before)
    assert sizes[SCORES[0]] <= found < sizes[SCORES[0]] + 10_000, "the footers are known"
    plan_arm(root, pool, arm.model_copy(update={"select": "bottom", "where": f"{SCORES[0]} < 1"}), workers=1)
    found, before = read_since(range_server, before)
    assert found == 0
    grown = arm.model_copy(update={"score": f"{SCORES[0]} + {SCORES[1]}", "where": "dump == 'a'"})
    plan = plan_arm(root, pool, grown, workers=1)
    found, before = read_since(range_server, before)
    assert sizes[SCORES[1]] + sizes["dump"] <= found < sizes[SCORES[1]] + sizes["dump"] + 10_000
    assert plan.population + plan.filtered_documents == FILES * ROWS - 64
    assert abs(plan.population - FILES * ROWS / 3) < 64
    names = [name.split("/")[-1].rsplit("-", 1)[0] for name in root.names("pools") if "/columns/" in name]
    assert sorted(names) == sorted([*SCORES[:2], "dump"])


def test_an_interrupted_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "raw")
    root, pool = Root(tmp_path / "root"), Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=64)
    decode, read = entries._decode, []

    def killed(todo: entries.BlobToRead, *rest: object) -> object:
        read.append((todo.number, [wanted.name for wanted in todo.columns]))
        if len(read) == 2:
            raise KeyboardInterrupt
        return decode(todo, *rest)

    monkeypatch.setattr(entries, "_decode", killed)
    monkeypatch.setattr(entries, "FILES_IN_FLIGHT", 1)
    with pytest.raises(KeyboardInterrupt):
        build_index(root, pool, [Wanted(SCORES[0])], workers=1)
    build_index(root, pool, [Wanted(SCORES[0]), Wanted("dump")], workers=1)
    done = read[0][0]
    assert (done, ["dump"]) in read[2:] or not any(number == done and SCORES[0] in names for number, names in read[2:])
    column = root.open(PoolFolder(open_pool(root, pool).pool_id).column(SCORES[0], "values"))
    values = np.concatenate([pq.read_table(tmp_path / f"raw/{n}.parquet")[SCORES[0]].to_numpy() for n in range(FILES)])
    assert np.array_equal(StoredColumn.open(column).numbers(), values)


def test_what_is_no_token_count_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    columns = [
        pa.array([1.0, 7.5, np.nan, np.inf, None, -5.0, 2.0**31], pa.float64()),
        pa.array([1, 7, None, -5, 2**31, 2**40, 0], pa.int64()),
        pa.array([1, 7, 2**63, 2**31, 2**31, 2**31, 2**31 - 1], pa.uint64()),
    ]
    for number, counts in enumerate(columns):
        texts = [f"{number}/{row}" for row in range(len(counts))]
        pq.write_table(pa.table({"text": texts, "token_count": counts}), tmp_path / f"raw/{number}.parquet")
    pool = Pool(source=(tmp_path / "raw").as_uri(), format="unrated")
    found = Index(build_index(Root(tmp_path / "root"), pool).path).tokens
    expected = [[1, 7, -1, -1, -1, -1, -1], [1, 7, -1, -1, -1, -1, 0], [1, 7, -1, -1, -1, -1, 2**31 - 1]]
    assert found is not None
    assert found.reshape(3, 7).tolist() == expected


def test_values_are_kept_exactly_and_a_column_widens_where_a_file_needs_it(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    kinds = [pa.int32(), pa.float32(), pa.float64(), pa.bool_()]
    for number, kind in enumerate(kinds):
        values = pa.array([0.1, 1.5, None] * 20).cast(kind, safe=False)
        if kind == pa.float64():
            values = pc.add(values, math.pi)
        table = pa.table({"text": [f"{number}/{row}" for row in range(60)], "x": values})
        pq.write_table(table if number else table.drop_columns(["x"]), tmp_path / f"raw/{number}.parquet")
        pq.write_table(table, tmp_path / f"raw/{number}b.parquet")
    root = Root(tmp_path / "root")
    pool = Pool(source=(tmp_path / "raw").as_uri(), format="unrated", skip_bad_files=True)
    build_index(root, pool, [Wanted("x")])
    column = root.open(PoolFolder(open_pool(root, pool).pool_id).column("x", "values"))
    found = StoredColumn.open(column).numbers()
    single, double = 0.1, (0.1 + math.pi, 1.5 + math.pi)
    expected = [[np.nan] * 3, [0.0, 1.0, np.nan]]
    for first, second in ((single, 1.5), double, (1.0, 1.0)):
        expected += [[first, second, np.nan]] * 2
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.reshape(-1, 20, 3)[:, 0], expected)
    assert column.facts["bad_files"] == {"0.parquet": "has no column 'x' (it has: text)"}


@pytest.mark.parametrize(
    ("numbers", "width"),
    [
        (np.random.default_rng(0).normal(size=PART + 5).round(4), 4),
        (np.arange(-30, 90) / 7, 4),
        (np.full(3, np.nan), 4),
        (np.random.default_rng(0).normal(size=5), 8),
        (np.array([0.5, 0.00005]), 8),
        (np.array([0.5, 1e300]), 8),
        (np.array([0.5, -1 / UNITS]), 8),
        (np.append(np.zeros(PART), math.pi), 8),
    ],
)
def test_decimals_and_means_are_kept_exactly_in_half_the_bytes(numbers: np.ndarray, width: int) -> None:
    numbers[0] = np.nan
    kept = narrowed(numbers)
    assert kept.itemsize == width
    np.testing.assert_array_equal(widened(kept), numbers)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm(score={"factual_acuracy_average": 1.0}), r"no column 'factual_acuracy_average' .*: take factual_accuracy_average"),
        (Arm(where="dumb == 'a'"), r"no column 'dumb' .*: take dump instead of dumb"),
        (Arm(where=f"{SCORES[0]} > 1e9"), r"with where='.* > 1e9' leaves none of 352 documents: loosen it"),
        (Arm(min_score=99.0), r"takes documents with a score of 99 or more, but the highest score is [45].*: lower min_score"),
        (Arm(where="dump", select="all"), r"The filter 'dump' is a text: a condition is needed"),
        (Arm(match="dump", share=0.9, where="dump == 'a'"), r"matches dump: \d+ documents of 'b' are needed, and it may take 0"),
        (Arm(match="text"), r"more than 100 different texts: filter by a property"),
    ],
)  # fmt: skip
def test_what_an_arm_cannot_have_is_said_in_one_sentence(
    arm: Arm, message: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.corpus.pool.index.MOST_TEXTS", 100)
    for path in corpus.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("dump", pa.array(["a", "b", None] * 40)), path)
    pool = Pool(source=corpus.as_uri(), holdout_documents=8, holdout_fraction=0.1)
    with pytest.raises(InputError, match=message) as caught:
        plan_arm(Root(tmp_path / "root"), pool, arm.model_copy(update={"population": ()}))
    assert "\n" not in str(caught.value)
