"""scores.parquet: one row per document, and bits per byte of all and of each decile."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import DamagedError
from tasks.records.scores import (
    FORMAT_KEY,
    SCHEMA,
    bits_per_byte,
    deciles,
    read_scores,
    scores_table,
    summarize,
    write_scores,
)
from tasks.store.artifact import Work

DOCUMENTS = pa.table(
    {
        "document": np.arange(3),
        "cluster": np.arange(3, dtype=np.int32),
        "score": [0.0, 0.5, 1.0],
        "decile": np.arange(3, dtype=np.int8),
        "bytes": np.array([12, 12, 12]),
        "source": pa.array(["s"] * 3).dictionary_encode(),
        "offset": [0, 4, 8],
        "tokens": [4, 4, 4],
    }
)
SCORES = scores_table(np.array([1.0, 2.0, 3.0]), DOCUMENTS)


def test_bits_per_byte_by_its_definition():
    assert bits_per_byte(np.array([math.log(2) * 8, 0.0]), np.array([3, 5])) == pytest.approx(1.0)
    found = summarize(SCORES)
    assert found["bpb"] == pytest.approx(6 / (math.log(2) * 36))
    assert found["bpb_by_decile"][1] == pytest.approx(2 / (math.log(2) * 12))
    assert found["bpb_by_decile"][3:] == [None] * 7


def test_a_document_without_a_rating_counts_in_all_and_in_no_decile():
    column = DOCUMENTS.schema.get_field_index("decile")
    unrated = DOCUMENTS.set_column(column, "decile", pa.array([0, -1, 1], pa.int8()))
    found = summarize(scores_table(np.array([1.0, 2.0, 3.0]), unrated))
    assert found["bpb"] == pytest.approx(6 / (math.log(2) * 36))
    assert found["bpb_by_decile"] == pytest.approx([1 / (math.log(2) * 12), 3 / (math.log(2) * 12)] + [None] * 8)


@pytest.mark.parametrize("order", [1, -1])
def test_equal_scores_share_a_decile_wherever_they_lie_in_the_pool(order):
    assert deciles(np.arange(100.0)[::order]).tolist() == (np.arange(100) // 10)[::order].tolist()
    assert deciles(np.array([3.0] * 90 + [4.0] * 10)[::order]).tolist() == ([4] * 90 + [9] * 10)[::order]
    assert deciles(np.array([2.0] * 10 + [3.0] * 90)[::order]).tolist() == ([0] * 10 + [5] * 90)[::order]
    assert deciles(np.array([np.nan, 1.0, np.inf, 1.0])).tolist() == [-1, 2, -1, 2]
    assert deciles(np.array([])).tolist() == []


def test_what_is_written_is_read(tmp_path):
    work = Work(tmp_path)
    write_scores(work, SCORES)
    read = read_scores(tmp_path / "scores.parquet")
    assert read.equals(SCORES) and read.schema.equals(SCHEMA, check_metadata=True)
    assert read.column_names == ["document", "cluster", "score", "decile", "bytes", "tokens", "nats", "source"]


def test_another_format_is_refused_and_a_file_without_one_is_read(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(SCORES.replace_schema_metadata({FORMAT_KEY: "2"}), path)
    with pytest.raises(DamagedError, match="has format 2, this version of FabRating reads 1"):
        read_scores(path)
    pq.write_table(SCORES.replace_schema_metadata(None), path)
    assert read_scores(path)["nats"].to_pylist() == [1.0, 2.0, 3.0]
