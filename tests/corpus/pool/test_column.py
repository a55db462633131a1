"""A column that grows on the disk."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.corpus.pool.column import NOTHING, UNITS, Column, StoredColumn, numbers, widened
from tasks.corpus.pool.scores import passing, scores_of
from tasks.store.artifact import sha256_file


@pytest.mark.parametrize("expected", [None, 8, 100_001])
@pytest.mark.parametrize("sizes", [(), (0,), (3, 0, 5), (99_999, 2)])
def test_a_closed_column_is_what_was_appended(tmp_path, sizes, expected):
    parts = [np.random.default_rng(number).random(size) for number, size in enumerate(sizes)]
    column = Column(tmp_path / "scores.npy", np.float64, expected)
    for part in parts:
        column.append(part)
    assert column.close() == sum(sizes)
    assert np.array_equal(np.load(tmp_path / "scores.npy"), np.concatenate([np.zeros(0), *parts]))
    assert column.sha256 == (sha256_file(tmp_path / "scores.npy") if expected == sum(sizes) else None)


def test_a_column_that_was_widened_has_the_checksum_of_its_file(tmp_path):
    column = Column(tmp_path / "scores.npy", np.int32, 3)
    column.append(np.array([UNITS, NOTHING], np.int32))
    column.widen()
    column.append(np.array([np.pi]))
    column.close()
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), [1, np.nan, np.pi])
    assert column.sha256 == sha256_file(tmp_path / "scores.npy")


def test_another_type_is_refused(tmp_path):
    with pytest.raises(TypeError, match="float64 for a column of int32"):
        Column(tmp_path / "tokens.npy", np.int32).append(np.zeros(2))


def column_of(values, kind) -> StoredColumn:
    return StoredColumn(numbers(pa.chunked_array([pa.array(values, kind)])), None)


@pytest.mark.parametrize("others", [[], [0.123456789], [None]])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_rating_of_3_3_is_3_3_however_it_is_stored_and_whatever_else_the_column_has(kind, others):
    columns = {"a": column_of([3.3, 3.2, 3.4, *others], kind)}
    assert passing(columns, "a >= 3.3", 3).tolist() == [True, False, True]
    assert passing(columns, "a in (3.3, 7)", 3).tolist() == [True, False, False]
    assert (scores_of(columns, {"a": 1.0}, 3) >= 3.3).tolist() == [True, False, True]


def test_a_float32_stands_for_one_number_close_to_it_in_the_same_order():
    random = np.random.default_rng(1)
    near = np.float32(3.3) + np.arange(-1000, 1000, dtype=np.float32) * np.spacing(np.float32(3.3))
    drawn = (10 ** random.uniform(-9, 30, 20_000)).astype(np.float32)
    values = np.unique(np.concatenate([near, drawn, -drawn, [0, np.nan, 1e9, 3408]]).astype(np.float32))
    found = widened(values)
    assert np.array_equal(found.astype(np.float32), values, equal_nan=True)
    assert (np.diff(found[~np.isnan(found)]) > 0).all()


def test_equal_means_tie_and_reach_a_threshold_whichever_ratings_they_are_of():
    tenths = np.random.default_rng(0).integers(10, 51, size=(20_000, 3))
    columns = {name: column_of(tenths[:, i] / 10, pa.float64()) for i, name in enumerate("abc")}
    found = scores_of(columns, dict.fromkeys("abc", 1.0), len(tenths))
    sums = tenths.sum(1)
    assert len(np.unique(found)) == len(np.unique(sums)), "added as they are, they make twice as many scores"
    assert ((found >= 3.7) == (sums >= 111)).all()
    assert np.isnan(scores_of(columns | {"a": column_of([None, 3.1], pa.float64())}, {"a": 1.0, "b": 2.0}, 2)[0])
