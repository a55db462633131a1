"""Looking at a store without reading it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.pool.survey import survey
from tasks.errors import InputError
from tests.corpus.corpora import SCORES, rated_table, write_corpus


def test_a_survey_says_what_lies_there(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    tables = write_corpus(raw, files=4, rows=100, row_group=50)
    pq.write_table(tables[3].drop_columns([SCORES[2]]), raw / "part_003.parquet")
    (raw / "broken.parquet").write_bytes(b"nothing of the kind")
    found = survey(raw.as_uri())
    assert (found["files"], found["documents"], found["row_groups"]) == (5, 400, 7)
    assert found["bad_files"] == ["broken.parquet is not a Parquet file (it does not end with PAR1)"]
    assert [(s["files"], SCORES[2] in s["schema"]) for s in found["schemas"]] == [(3, True), (1, False)]
    assert found["columns"]["embedding"]["bytes"] > found["columns"]["text"]["bytes"]
    assert found["columns"][SCORES[2]]["files"] == 3
    assert found["rows_per_row_group"] == {"least": 50, "median": 50.0, "most": 100}
    assert found["ratings"][SCORES[0]]["quantiles"]["1"] == 5.0


def test_examples_are_the_best_the_middle_and_the_worst(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    scores = np.random.default_rng(0).permutation(100) / 10
    pq.write_table(
        rated_table([f"scored {s}" for s in scores], [[2 * s, -s, 2 * s] for s in scores]), raw / "a.parquet"
    )
    found = survey(raw.as_uri(), samples=2)
    assert [e["text"] for e in found["examples"]["top"]] == ["scored 9.9", "scored 9.8"]
    assert [e["text"] for e in found["examples"]["bottom"]] == ["scored 0.1", "scored 0.0"]
    assert 4 < found["examples"]["middle"][0]["score"] < 6
    assert found["correlations"][SCORES[0]][SCORES[1]] == pytest.approx(-1.0)
    assert found["composite"]["1"] == pytest.approx(9.9)


def test_a_survey_reads_footers_and_a_few_row_groups(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        texts = ["".join(map(chr, rng.integers(33, 1000, 300))) for _ in range(6000)]
        table = rated_table(texts, rng.normal(size=(6000, 3)).tolist())
        pq.write_table(table, raw / f"{number}.parquet", row_group_size=500)
    found = survey(raw.as_uri())
    assert found["read"]["bytes_read"] < 0.25 * found["bytes"]
    assert found["looked_at"] == {"row_groups": 8, "documents": 4000}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no files ending in \.parquet, \.jsonl, "):
        survey((tmp_path / "empty").as_uri())


def test_a_survey_of_json_lines_looks_at_their_beginnings(tmp_path: Path) -> None:
    for number in range(3):
        rows = rated_table([f"scored {i}" for i in range(50)], [[float(i % 6)] * 3 for i in range(50)]).to_pylist()
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "4.jsonl").write_text("nothing of the kind")
    found = survey(str(tmp_path))
    assert (found["files"], found["documents"], found["bad_files"][0][:34]) == (
        4,
        150,
        "4.jsonl has no JSON object in line",
    )
    assert found["ratings"][SCORES[0]]["quantiles"]["1"] == 5.0 and found["schemas"][0]["example"] == "0.jsonl"
    assert found["examples"]["top"][0]["score"] == 5.0 and "first lines of 3 files" in found["note"]


def test_whole_numbers_beyond_a_float_durations_and_damaged_text_are_surveyed(tmp_path: Path) -> None:
    texts = pa.array([b"caf\xe9 %d" % i for i in range(20)], pa.binary())
    columns = {"text": texts, "hash": pa.array(range(2**60, 2**60 + 20)), "time": pa.array(range(20), pa.duration("s"))}
    pq.write_table(pa.table(columns), tmp_path / "part.parquet")
    found = survey(tmp_path.as_uri(), samples=1)
    assert found["ratings"]["hash"]["quantiles"]["0"] == 2.0**60 and "time" not in found["ratings"]
    assert found["examples"]["top"][0]["text"].startswith("caf\ufffd ")
