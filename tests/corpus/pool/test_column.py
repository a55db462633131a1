"""A column that grows on the disk."""

import numpy as np
import pytest

from tasks.corpus.pool.column import NOTHING, UNITS, Column
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
