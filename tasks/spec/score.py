"""What documents are ranked by: a weighted mean of columns, or an expression."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.errors import InputError
from tasks.expression import parse


def _weights(score: dict[str, float]) -> dict[str, float]:
    if any(weight < 0 for weight in score.values()):
        raise InputError("A weight is below 0: give weights of 0 or more, or write an expression.")
    return score


def _formula(text: str) -> str:
    parse(text)
    return text


Weights = Annotated[dict[str, float], Field(max_length=64), AfterValidator(_weights)]
"""Columns and their weights: the score is the weighted mean, and a weight of 0 counts for nothing."""
Formula = Annotated[str, Field(min_length=1), AfterValidator(_formula)]
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
