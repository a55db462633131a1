"""What documents are ranked by: a weighted mean of columns, or an expression."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.expression import parse
from tasks.spec.base import CLOSED, Column, Shape


def _formula(text: str) -> str:
    parse(text)
    return text


Weights = Annotated[dict[Column, Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=64, json_schema_extra=CLOSED)]
"""Columns and their weights: the score is the weighted mean, and a weight of 0 counts for nothing."""
Formula = Annotated[
    str,
    Shape(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]{1,10000}", "an expression of 1 to 10,000 characters"),
    AfterValidator(_formula),
]
"""An expression over columns, in the language of `tasks.expression`."""
Score = Weights | Formula


def spelled_out(score: Score) -> Score:
    """The score as names and manifests have it: without columns that count for nothing, in the order of their names."""
    return score if isinstance(score, str) else {column: score[column] for column in columns_of(score)}


def columns_of(score: Score) -> tuple[str, ...]:
    """The columns without which a document has no score, sorted."""
    if isinstance(score, str):
        return parse(score).columns
    return tuple(sorted(column for column, weight in score.items() if weight > 0))
