"""Packed rows: each exactly once, in order, for any number of ranks and micro-batches."""

import numpy as np
import pytest
import torch

from tasks.engines.builtin.rows import Batch, PackedRows, RowFeed
from tasks.errors import DamagedError
from tasks.records.packed import ROW_CONTENTS, TrainedText, choose_rows
from tasks.spec import Training

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


@pytest.mark.parametrize("world", [1, 2, 4])
def test_each_row_that_a_budget_takes_is_read_once_on_any_number_of_ranks_and_after_a_kill(tmp_path, packed, world):
    chosen = choose_rows(24, 16, Training(), seed=3)
    assert len(set(chosen)) == 16 and list(chosen) != list(range(16))
    part = PackedRows(tmp_path / "rows.bin", 24, 4, chosen)
    seen = read(part, Batch(8, 1, 0, 4), 0, 1)  # killed after a step, and resumed on another number of ranks
    seen += [row for rank in range(world) for row in read(part, Batch(8, world, rank, 2), 1, 2)]
    assert seen == list(chosen)
    with pytest.raises(IndexError, match="of 16"):
        part.take(15, 2)


def test_a_budget_takes_a_fair_sample_by_seed_and_the_front_only_when_told():
    rows, count = 10_000, 1_800
    contents = np.zeros(rows, ROW_CONTENTS)
    contents["score"], contents["bytes"] = np.linspace(5, 0, rows), 7  # best first
    chosen = {seed: choose_rows(rows, count, Training(), seed) for seed in (1, 2)}
    assert (np.diff(chosen[1]) > 0).all(), "in the arm's order"
    assert 0.1 < np.isin(chosen[1], chosen[2]).mean() < 0.3, "another seed, another sample"
    assert np.isin(choose_rows(rows, 600, Training(), 1), chosen[1]).all(), "a smaller budget is a part of a larger one"
    text = TrainedText.of(contents, chosen[1], rows * 10)
    error = contents["score"].std() / count**0.5
    assert abs(text.mean_score - text.arm_mean_score) < 4 * error
    assert text.text_share == pytest.approx(0.7 * count / rows)
    shuffled = choose_rows(rows, count, Training(), 1, shuffled=True)
    assert np.array_equal(np.sort(shuffled), chosen[1]) and np.abs(np.diff(shuffled)).mean() > rows / 5
    reordered = choose_rows(rows, count, Training(), 1, shuffled=True, order_seed=2)
    assert sorted(reordered) == sorted(shuffled) and reordered.tolist() != shuffled.tolist()
    front = choose_rows(rows, count, Training(budget_from="front"), 1)
    assert list(front) == list(range(count))
    assert TrainedText.of(contents, front, rows * 10).mean_score > text.arm_mean_score + 40 * error


def test_the_rows_that_a_seed_draws_never_change():
    assert choose_rows(20, 6, Training(), seed=1).tolist() == [3, 4, 8, 11, 13, 18]
    twice = choose_rows(20, 12, Training(), seed=1, shuffled=True, epochs=2).tolist()
    assert (twice[:6], twice[6:]) == ([3, 4, 18, 13, 11, 8], [8, 18, 11, 3, 13, 4])


@pytest.mark.parametrize("budget_from", ["random", "front"])
@pytest.mark.parametrize(("count", "distinct"), [(80, 20), (79, 20), (24, 6), (22, 6), (3, 1)])
def test_each_row_of_the_budget_is_read_in_each_epoch_but_for_one(budget_from, count, distinct):
    training = Training(budget_from=budget_from)
    read = choose_rows(20, count, training, seed=1, shuffled=True, epochs=4)
    visits = np.bincount(read, minlength=20)
    assert len(read) == count and sorted(visits)[20 - distinct + 1 :] == [4] * (distinct - 1)
    assert visits.max() == (count % 4 or 4 if distinct == 1 else 4) and (visits > 0).sum() == distinct
    assert np.array_equal(np.flatnonzero(visits), np.sort(choose_rows(20, distinct, training, seed=1)))


def test_a_shuffled_arm_is_reshuffled_in_each_epoch_and_a_sorted_one_is_not():
    shuffled = choose_rows(20, 60, Training(), seed=1, shuffled=True, epochs=3).reshape(3, 20)
    assert len({tuple(epoch) for epoch in shuffled}) == 3
    assert np.array_equal(shuffled[0], choose_rows(20, 20, Training(), seed=1, shuffled=True)), "the first is as before"
    assert not np.array_equal(shuffled, choose_rows(20, 60, Training(), 2, shuffled=True, epochs=3).reshape(3, 20))
    assert (choose_rows(20, 60, Training(), seed=1, epochs=3).reshape(3, 20) == np.arange(20)).all()


def test_what_is_read_several_times_counts_once():
    contents = np.zeros(4, ROW_CONTENTS)
    contents["documents"], contents["bytes"], contents["score"] = 1, 10, [4, 3, 2, 1]
    text = TrainedText.of(contents, np.array([1, 0, 0, 1]), 80, epochs=2)
    assert (text.trained_documents, text.trained_bytes, text.text_share, text.mean_score, text.epochs) == (2, 20, 0.25, 3.5, 2)  # fmt: skip


def test_an_unrated_arm_has_no_mean_score():
    contents = np.zeros(3, ROW_CONTENTS)
    contents["score"] = np.nan, 2.0, np.nan
    assert TrainedText.of(contents, np.array([1]), 1).mean_score == 2.0
    assert TrainedText.of(contents, np.array([0, 2]), 1).mean_score is None


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
