"""Texts that come after an arm get their counts of near copies from what lies there."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.leaks import search_arm
from flows.sequence import Steps, prepare_arm
from infra.cli.main import app
from tasks.records.layout import ArmFolder
from tasks.records.near import HOLDOUT, leaked
from tasks.spec import Arm, Pool, Questions, Texts, Training
from tasks.store.root import Root
from tests.corpus.corpora import prose, rated_table
from tests.corpus.near.test_passages import edited


@pytest.fixture
def arm(tmp_path: Path) -> str:
    """A prepared arm of everything; two of its documents are edited ones of the holdout."""
    held = prose(30, seed=2)
    texts = [*prose(300, seed=1), edited(held[4], 0.05, 0), edited(held[7], 0.05, 1)]
    for name, part in {"raw": texts, "held": held}.items():
        (tmp_path / name).mkdir()
        pq.write_table(rated_table(part, [[1.0] * 3] * len(part)), tmp_path / name / "a.parquet", row_group_size=50)
    places = {"source": (tmp_path / "raw").as_uri(), "holdout": (tmp_path / "held").as_uri()}
    pool = Pool(**places, holdout_documents=30, vocab_size=300, workers=1)
    made = prepare_arm(
        Root(tmp_path / "root"), pool, Arm(name="all", select="all"), Training(sequence_length=64), Steps()
    )
    assert (made.facts["near_copies"], made.facts["leaked_documents"]) == (2, 2)
    return made.arm_id


def test_texts_are_counted_in_an_arm_that_is_there_and_numbered_as_they_are_scored(
    arm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    documents = [*prose(9, seed=5), "", prose(300, seed=1)[-1], *prose(3, seed=6)]
    (tmp_path / "texts/a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    root = Root(tmp_path / "root")
    found = search_arm(root, arm, [Texts(url=str(tmp_path / "texts"))], Steps())
    names = list(found)
    assert names[0] == HOLDOUT and names[1].startswith("outside-")
    assert leaked(found[HOLDOUT].path).tolist() == [4, 7] and leaked(found[names[1]].path).tolist() == [9]
    assert root.find(ArmFolder(arm).near(names[1]))
    held = pq.read_table(tmp_path / "raw/a.parquet")["text"].to_pylist()
    rows = [{"context": "How many " + str(i), "answer": "seven"} for i in range(3)]
    rows.insert(1, {"context": "Complete: " + " ".join(held[9].split()[:40]), "answer": held[9].split()[40]})
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exam = Questions(name="exam", url=str(tmp_path / "exam.jsonl"))
    (made,) = [each for what, each in search_arm(root, arm, [], Steps(), [exam]).items() if what != HOLDOUT]
    assert made.name.rsplit("/", 1)[1].split("-", 1)[1].startswith("questions-exam-")
    assert leaked(made.path).tolist() == [1] and made.facts["unsearchable"] == 3, "three are too short to tell"
    app(["leaks", arm, str(tmp_path / "texts"), "--root", str(tmp_path / "root"), "--json"], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert [row["of"] for row in shown] == names and shown[1]["documents"] == 13
    given = ["leaks", arm, "--questions", str(tmp_path / "exam.jsonl"), "--questions-name", "exam"]
    app([*given, "--root", str(tmp_path / "root"), "--json"], standalone_mode=False)
    assert [row["leaked"] for row in json.loads(capsys.readouterr().out)] == [2, 1]
