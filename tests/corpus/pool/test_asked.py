"""Columns that a pool lacks are all named at once, with what to set; a look at it shows whatever ratings there are."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.arm.traits import wanted_columns
from tasks.corpus.pool.survey import survey
from tasks.corpus.prepare import build_index
from tasks.errors import InputError
from tasks.spec import Arm, Pool
from tasks.store.root import Root

EVERYTHING = {"select": "all", "population": ()}
VALUES = {
    "text": [f"text {n}" for n in range(40)],
    "long": [f"text {n} " * 9 for n in range(40)],
    "number": list(range(40)),
}


def write(folder: Path, columns: dict[str, str]) -> Path:
    folder.mkdir()
    for number in range(2):
        table = pa.table({name: VALUES[kind] for name, kind in columns.items()})
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "arm", "said"),
    [
        (
            {"content": "text", "url": "text"},
            Arm(**EVERYTHING),
            "no column 'text' (it has content, url): --set text_column=content",
        ),
        (
            {"url": "text", "page": "long", "quality": "number", "doc_id": "number"},
            Arm(),
            "no column 'text' and no ratings by their default names (it has url, page, quality, doc_id): "
            "--set text_column=page --set score='{\"quality\": 1}'",
        ),
        (
            {"text": "text", "factual_accuracy_average": "number"},
            Arm(),
            "no columns 'lesson_engagement_average', 'pedagogical_structure_average' (it has text, factual_accuracy_average): "
            "--set score='{\"factual_accuracy_average\": 1}'",
        ),
        (
            {"text": "text", "uuid": "text"},
            Arm(ids="/nowhere.txt", **EVERYTHING),
            "no column 'id' (it has text, uuid): --set id_column=uuid",
        ),
        (
            {"text": "text", "dump_name": "text"},
            Arm(where="dump == 'a'", **EVERYTHING),
            "no column 'dump' (it has text, dump_name): take dump_name instead of dump",
        ),
    ],
)
def test_all_columns_that_are_lacking_are_named(columns: dict[str, str], arm: Arm, said: str, tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", columns)
    pool = Pool(source=str(raw), format="rated" if arm == Arm() else "unrated")
    with pytest.raises(InputError, match=re.escape(f"{raw} has {said}.")):
        build_index(Root(tmp_path / "root"), pool, wanted_columns(arm, pool))


def test_a_look_shows_the_ratings_that_there_are_and_says_what_to_set(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"page": "long", "quality": "number", "doc_id": "number"})
    found = survey(str(raw))
    assert found["fault"].endswith("--set text_column=page --set score='{\"quality\": 1}'")
    assert list(found["ratings"]) == ["quality"] and found["ratings"]["quality"]["quantiles"]["1"] == 39
    given = survey(str(raw), pool=Pool(text_column="page", score={"quality": 1}), samples=1)
    assert given["fault"] is None and given["ranked_by"] == {"quality": 1}
    assert [given["examples"][where][0]["score"] for where in ("top", "bottom")] == [39, 0]


def test_a_look_knows_columns_that_are_folders_and_asks_for_ids(tmp_path: Path) -> None:
    (tmp_path / "dump=7").mkdir()
    pq.write_table(
        pa.table({"text": ["a", "b"], "score": [1.0, 2.0], "doc_id": ["x", "y"]}), tmp_path / "dump=7/a.parquet"
    )
    pool = Pool(source=str(tmp_path), score={"dump": 1.0, "score": 1.0})
    found = survey(str(tmp_path), pool=pool, ids="id")
    assert found["columns"]["dump"] == {"types": {"folder": 1}, "files": 1, "bytes": 0, "bytes_decoded": 0}
    assert found["fault"] == "no column 'id' (it has text, score, doc_id): --set id_column=doc_id"
    assert survey(str(tmp_path), pool=pool, ids="doc_id")["fault"] is None
