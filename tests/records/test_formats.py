"""docs/formats.md says what is in the files: every column and field by its name, and the numbers of the formats."""

import re
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from tasks.records import scores
from tasks.records.record import Record
from tasks.records.verdict import ArmScores, Comparison, Verdict

TEXT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
PARTS = dict(zip(("files", "scores", "verdict", "arm", "pair"), re.split(r"\n## .*\n|\nOf a.*:\n", TEXT), strict=True))


def first_cells(part: str) -> list[str]:
    """The names in the first column of a part's table."""
    rows = [line for line in PARTS[part].splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_columns_of_scores() -> None:
    rows = [line.split("|") for line in PARTS["scores"].splitlines() if line.startswith("| `")]
    assert pa.schema({cells[1].strip(" `"): cells[2].strip() for cells in rows}).equals(scores.SCHEMA)


@pytest.mark.parametrize(("part", "record"), [("verdict", Verdict), ("arm", ArmScores), ("pair", Comparison)])
def test_fields_of_a_verdict(part: str, record: type[Record]) -> None:
    fields = {*record.model_fields, *record.model_computed_fields} - {"format"}
    assert sorted(first_cells(part)) == sorted(fields)


def test_numbers_of_the_formats() -> None:
    (number,) = get_args(Verdict.model_fields["format"].annotation)
    rows = [[cell.strip() for cell in line.split("|")] for line in PARTS["files"].splitlines()]
    assert [row[2] for row in rows if row[1:2] and "scores.parquet" in row[1]] == [str(scores.FORMAT)]
    assert [row[2] for row in rows if row[1:2] and "verdict.json" in row[1]] == [str(number)]
    assert scores.FORMAT_KEY.decode() in TEXT
