"""Shards as nanochat reads them: eight ranks side by side, row groups of at most 1,024."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus.arm.emit import DROPPED, plan_buckets
from tasks.corpus.arm.plan import MOST_DOCUMENTS, check_disk, passes
from tasks.corpus.arm.scatter import Runs
from tasks.corpus.arm.writer import write_texts
from tasks.corpus.near.passages import Found
from tasks.corpus.parquet.shards import ordered_groups, row_groups, shard_bounds
from tasks.corpus.parquet.views import Views
from tasks.corpus.pool.holdout import HeldOut
from tasks.corpus.pool.index import Index
from tasks.corpus.prepare import build_arms, build_holdout, build_index, build_strata, plan_arm
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store.artifact import sha256_file
from tasks.store.root import Root
from tests.corpus.corpora import pool_scores, write_corpus


@given(st.integers(8, 100_000))
def test_row_groups_are_equal_and_a_multiple_of_eight(documents: int) -> None:
    sizes = np.diff(row_groups(documents))
    assert len(sizes) % 8 == 0
    assert sizes.sum() == documents
    assert sizes.min() >= 1
    assert sizes.max() <= min(1024, sizes.min() + 1)


@given(st.integers(8, 5000), st.integers(16, 500))
def test_shards_are_full_but_the_last(documents: int, per_shard: int) -> None:
    sizes = np.diff(shard_bounds(documents, per_shard))
    assert sizes.sum() == documents
    assert (sizes[:-2] == per_shard).all()
    assert sizes[-1] >= 8
    assert sizes.max() < per_shard + 8


def test_fourteen_thousand_documents_are_sixteen_row_groups_of_875(tmp_path: Path) -> None:
    texts = pa.array([f"text {i} é" for i in range(14_000)], pa.large_string())
    order = np.random.default_rng(0).permutation(14_000)
    digest = write_texts(tmp_path / "shard.parquet", ordered_groups(Views.of(texts), order))
    assert digest == sha256_file(tmp_path / "shard.parquet")
    file = pq.ParquetFile(tmp_path / "shard.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [875] * 16
    column = file.metadata.row_group(0).column(0)
    assert (column.compression, column.statistics, column.has_dictionary_page) == ("ZSTD", None, False)
    assert file.schema_arrow == pa.schema([("text", pa.string())])
    assert file.read().column("text").to_pylist() == [f"text {i} é" for i in order]


def test_the_holdouts_shard_is_written_from_a_few_texts_at_a_time_as_from_all(tmp_path: Path) -> None:
    write_corpus(tmp_path / "raw", files=3, rows=3000, row_group=500)
    pool = Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=2500, holdout_fraction=0.5)
    file = pq.ParquetFile(build_holdout(Root(tmp_path / "root"), pool).path / "documents.parquet")
    assert file.num_row_groups == 3  # of 1,024 documents; the shard's are smaller and lie across their ends
    texts = Views.of(file.read().column("text").cast(pa.large_string()).combine_chunks())
    write_texts(tmp_path / "at_once.parquet", ordered_groups(texts, np.arange(len(texts))))
    (arm,) = build_arms(Root(tmp_path / "root"), pool, [Arm()])
    assert max(arm.path.glob("shard_*.parquet")).read_bytes() == (tmp_path / "at_once.parquet").read_bytes()


def test_the_holdout_is_the_last_shard_of_every_arm(corpus: Path, tmp_path: Path) -> None:
    root, pool = Root(tmp_path / "root"), Pool(source=corpus.as_uri(), holdout_documents=40, holdout_fraction=0.2)
    held = build_holdout(root, pool)
    arms = build_arms(root, pool, [Arm(), Arm(name="rand16", select="random", order="shuffled")])
    documents = pq.read_table(held.path / "documents.parquet")
    last = [max(arm.path.glob("shard_*.parquet")) for arm in arms]
    assert pq.read_table(last[0]).column("text").to_pylist() == documents.column("text").to_pylist()
    assert last[0].read_bytes() == last[1].read_bytes()
    assert documents.column("document").to_pylist() == list(range(40))
    strata = build_strata(root, pool, pool.score)
    table = pq.read_table(strata.path / "strata.parquet")
    score, decile = table.column("score").to_numpy(), table.column("decile").to_numpy()
    assert {-1, 0, 9} <= set(decile.tolist())
    assert ((decile == -1) == np.isnan(score)).all() and strata.facts["unrated_documents"] == np.isnan(score).sum()
    known = np.unique(decile[decile >= 0])
    assert all(score[decile == low].max() < score[decile == high].min() for low, high in pairwise(known)), (
        "no tie is cut"
    )
    assert documents.column("bytes").to_pylist() == [len(t.encode()) for t in documents.column("text").to_pylist()]
    blocks = documents.group_by("cluster").aggregate([("row", "min"), ("row", "max"), ("row", "count"), ("row_group", "count_distinct")])  # fmt: skip
    assert (blocks.column("row_max").to_numpy() - blocks.column("row_min").to_numpy() < blocks.column("row_count").to_numpy()).all()  # fmt: skip
    assert set(blocks.column("row_group_count_distinct").to_pylist()) == {1}


def test_a_plan_counts_exactly_and_needs_the_disk_it_has(corpus: Path, tmp_path: Path) -> None:
    root, pool = Root(tmp_path / "root"), Pool(source=corpus.as_uri(), holdout_documents=40, holdout_fraction=0.2)
    plan = plan_arm(root, pool, Arm(share=0.5))
    index = build_index(root, pool)
    unrated = int(np.isnan(np.delete(pool_scores(root, pool), HeldOut(build_holdout(root, pool), Index(index.path)).documents)).sum())  # fmt: skip
    assert (plan.pool_documents, plan.holdout_documents, plan.unrated_documents) == (360, 40, unrated)
    assert (plan.population, plan.documents) == (320 - unrated, (320 - unrated) // 2) and unrated > 0
    assert 0 < plan.cut_off_taken < plan.cut_off_documents
    assert (plan.files, plan.blobs_to_read) == (3, 3)
    assert plan.bytes_to_read <= index.facts["text_bytes_compressed"]
    (made,) = build_arms(root, pool, [Arm(share=0.5)])
    facts = ("tokens", "population", "unrated_documents", "cut_off_score", "cut_off_documents", "cut_off_taken")
    assert [made.facts[name] for name in facts] == [getattr(plan, name) for name in facts]
    scores = pq.read_table(made.path / "documents.parquet")["score"].to_numpy()
    assert plan.cut_off_score == scores.min() and plan.cut_off_taken == (scores == scores.min()).sum()
    assert plan.score_quantiles["0"] >= plan.pool_score_quantiles["0.4"]
    assert plan_arm(root, pool, Arm(share=0.5)).reused
    with pytest.raises(
        InputError, match=r"needs 9000\.0 GB under .*, besides 0\.5 GB that stay free, and .* are free: make"
    ):
        check_disk(plan.arm_id, 9 * 10**12, root.folder)


def test_arms_share_a_pass_as_far_as_disk_and_memory_go(corpus: Path, tmp_path: Path) -> None:
    pool = Pool(source=corpus.as_uri(), holdout_documents=40, holdout_fraction=0.2)
    plan = replace(plan_arm(Root(tmp_path), pool, Arm()), disk_bytes=20, disk_free=100, documents=MOST_DOCUMENTS // 3)
    there, vast, many = (
        replace(plan, reused=True),
        replace(plan, disk_bytes=90),
        replace(plan, documents=MOST_DOCUMENTS),
    )
    assert passes([plan] * 5) == [[0, 1], [2, 3], [4]]
    assert passes([there, plan, there, plan, there]) == [[0, 1, 2, 3, 4]]
    assert passes([vast, plan, many, plan]) == [[0], [1], [2], [3]]
    assert passes([replace(plan, disk_bytes=1)] * 4) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("seed", range(5))
def test_a_bucket_is_within_its_limit_where_half_of_the_documents_are_duplicates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = np.concatenate([np.sort(part) for part in rng.permutation(4_000).reshape(4, -1)]).astype(np.uint32)
    lengths = rng.integers(1, 200, len(ranks)).astype(np.uint32)
    dropped = rng.random(len(ranks)) < np.where(ranks < 2_000, 0.9, 0.1)
    runs = Runs(tuple("abcd"), np.arange(0, 4_001, 1_000), ranks, lengths, None, Found.concat([]), {}, {})
    kept = np.sort(ranks[~dropped])
    bounds = [*range(0, len(kept), 50), len(kept)]
    buckets = plan_buckets(runs, dropped, kept, bounds, [False] * (len(bounds) - 1), 20_000)
    assert [n for bucket in buckets for n in bucket.shards] == list(range(len(bounds) - 1))
    # what is read for a bucket is what it was counted as, but for duplicates between its last document and the next one's
    assert all(int(bucket.lengths.sum()) <= 20_000 + 5_000 or len(bucket.shards) == 1 for bucket in buckets)
    places = np.concatenate([bucket.positions[bucket.positions != DROPPED] for bucket in buckets])
    assert (np.sort(places) == np.arange(len(kept))).all()
