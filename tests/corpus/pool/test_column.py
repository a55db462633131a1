"""A column that grows on the disk."""

import numpy as np
import pytest

from tasks.corpus.pool.column import Column


@pytest.mark.parametrize("sizes", [(), (0,), (3, 0, 5), (99_999, 2)])
def test_a_closed_column_is_what_was_appended(tmp_path, sizes):
    parts = [np.random.default_rng(number).random(size) for number, size in enumerate(sizes)]
    column = Column(tmp_path / "scores.npy", np.float64)
    for part in parts:
        column.append(part)
    assert column.close() == sum(sizes)
    assert np.array_equal(np.load(tmp_path / "scores.npy"), np.concatenate([np.zeros(0), *parts]))


def test_another_type_is_refused(tmp_path):
    with pytest.raises(TypeError, match="float64 for a column of int32"):
        Column(tmp_path / "tokens.npy", np.int32).append(np.zeros(2))
