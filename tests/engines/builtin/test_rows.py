"""Packed rows: each exactly once, in order, for any number of ranks and micro-batches."""

import numpy as np
import pytest
import torch

from tasks.engines.builtin.rows import Batch, PackedRows, RowFeed
from tasks.errors import DamagedError

CPU = torch.device("cpu")


@pytest.fixture
def packed(tmp_path):
    """24 rows of 5 tokens that say where they are: row r holds 10 r ... 10 r + 4."""
    rows = (np.arange(24)[:, None] * 10 + np.arange(5)).astype("<u2")
    rows.tofile(tmp_path / "rows.bin")
    return PackedRows(tmp_path / "rows.bin", 24, 4)


def read(packed, batch, start, stop):
    """Row numbers that a feed yields, and the feed's last tensors."""
    feed = RowFeed(packed, batch, start, stop, CPU)
    seen = []
    for _ in range((stop - start) * batch.accumulation):
        inputs, targets = feed.next()
        assert inputs.dtype == targets.dtype == torch.int64
        assert (targets == inputs + 1).all()
        seen += (inputs[:, 0] // 10).tolist()
    with pytest.raises(StopIteration):
        feed.next()
    feed.close()
    return seen


@pytest.mark.parametrize(
    ("world", "micro"), [(world, micro) for world in (1, 2, 4) for micro in (1, 2, 4) if world * micro <= 8]
)
def test_every_row_once_for_any_world(packed, world, micro):
    per_rank = [read(packed, Batch(8, world, rank, micro), 0, 3) for rank in range(world)]
    share = 8 // world
    in_order = [row for step in range(3) for rank in per_rank for row in rank[step * share : (step + 1) * share]]
    assert in_order == list(range(24))


def test_world_size_may_change_between_steps(packed):
    first = read(packed, Batch(8, 1, 0, 4), 0, 1)
    second = sorted(row for rank in range(2) for row in read(packed, Batch(8, 2, rank, 2), 1, 2))
    third = sorted(row for rank in range(4) for row in read(packed, Batch(8, 4, rank, 1), 2, 3))
    assert first + second + third == list(range(24))


def test_nothing_wraps(packed):
    feed = RowFeed(packed, Batch(8), 2, 4, CPU)
    with pytest.raises(IndexError, match="24"):
        for _ in range(16):
            feed.next()
    feed.close()


def test_close_in_mid_epoch_ends_the_thread(packed):
    feed = RowFeed(packed, Batch(8), 0, 3, CPU)
    feed.next()
    feed.close()
    assert not feed._thread.is_alive()


def test_largest_token_survives(tmp_path):
    np.full((1, 3), 65_535, dtype="<u2").tofile(tmp_path / "rows.bin")
    assert PackedRows(tmp_path / "rows.bin", 1, 2).take(0, 1).tolist() == [[65_535] * 3]


def test_a_truncated_file_is_refused(tmp_path):
    np.zeros(9, dtype="<u2").tofile(tmp_path / "rows.bin")
    with pytest.raises(DamagedError, match="18 bytes instead of 20"):
        PackedRows(tmp_path / "rows.bin", 2, 4)
