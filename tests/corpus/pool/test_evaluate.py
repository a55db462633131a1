"""Expressions against Polars, whose nulls are SQL's too, document by document."""

import math

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.pool.column import NOTHING, StoredColumn, narrowed
from tasks.corpus.pool.scores import passing, scores_of
from tasks.errors import InputError
from tasks.expression import parse

TEXTS = ["web", "books", "x y", "it's"]
NUMBER = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -2.0, 3.0, 0.1]), st.floats(-1e6, 1e6))
ROWS = st.lists(st.tuples(NUMBER, NUMBER, st.sampled_from([None, *TEXTS])), min_size=1, max_size=30)

a, b, source = pl.col("a"), pl.col("b c"), pl.col("meta.source")
SCORES = {
    "a": a,
    "-a + 2 * `b c`": -a + 2 * b,
    "(a - `b c`) / `b c`": (a - b) / b,
    "log(a)": a.log(),
    "sqrt(abs(a)) + exp(`b c` / 1000)": a.abs().sqrt() + (b / 1000).exp(),
    "a ** 2 - 1e3": a.pow(2.0) - 1e3,
    "max(a, `b c`) - min(a, 1)": pl.when(a >= b).then(a).when(a < b).then(b)
    - pl.when(a < 1).then(a).when(a >= 1).then(1.0),
}
FILTERS = {
    "a > 3 and `b c` < 2": (a > 3) & (b < 2),
    "a > 3 or `b c` < 2": (a > 3) | (b < 2),
    "not (a >= `b c`)": ~(a >= b),
    "-2 <= a < 3 != `b c`": (a >= -2) & (a < 3) & (b != 3),
    'meta.source in ("web", "it\'s") or a in (0, 1, 0.1)': source.is_in(["web", "it's"]) | a.is_in([0.0, 1.0, 0.1]),
    "meta.source not in ('web',)": ~source.is_in(["web"]),
    "meta.source == 'x y' or a is None": (source == "x y") | a.is_null(),
    "`meta.source` is not None and not `b c` == 0.1": source.is_not_null() & ~(b == 0.1),
    "startswith(meta.source, 'b') or contains(meta.source, ' ')": source.str.starts_with("b")
    | source.str.contains(" "),
    "'web' != meta.source": source != "web",
}


def stored(rows: list[tuple[float | None, float | None, str | None]]) -> dict[str, StoredColumn]:
    first, second, third = zip(*rows, strict=True)
    codes = np.array([NOTHING if text is None else TEXTS.index(text) for text in third], np.int32)
    numbers = (np.array([math.nan if x is None else x for x in column]) for column in (first, second))
    columns = dict(zip(("a", "b c"), (StoredColumn(narrowed(column), None) for column in numbers), strict=True))
    return columns | {"meta.source": StoredColumn(codes, pa.array(TEXTS, pa.string()))}


def frame(rows: list[tuple[float | None, float | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"a": pl.Float64, "b c": pl.Float64, "meta.source": pl.String}, orient="row")


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_scores_and_filters_are_those_of_polars(rows):
    for text, wanted in SCORES.items():
        found = scores_of(stored(rows), text, len(rows))
        expected = frame(rows).select(wanted.alias("x"))["x"].to_numpy()
        expected = np.where(np.isfinite(expected), expected, np.nan)  # null, NaN and infinity are no score
        assert np.allclose(found, expected, rtol=1e-12, atol=0, equal_nan=True), text
    for text, wanted in FILTERS.items():
        expected = frame(rows).select(wanted.fill_null(False).alias("x"))["x"].to_list()
        assert passing(stored(rows), text, len(rows)).tolist() == expected, text


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a > 3 nad b < 2", 7, "invalid syntax"),
        ("a = 3", 3, "write == to compare"),
        ("`é è` > 3 nad b", 11, "invalid syntax"),
        ("a > 3 & b < 2", 5, "write `and` and `or`"),
        ("a +", 4, "invalid syntax"),
        ("1 < a and __import__('os')", 11, "no such function"),
        ("(a for a in b)", 1, "no part of the language"),
        ("a.b['c'] > 1", 1, "no part of the language"),
        ("log(a, b) > 1", 1, "log takes 1 argument"),
        ("contains(a, b)", 13, "a text in quotes is needed"),
        ("a in b", 6, "constants in parentheses"),
        ("a is b", 6, "only None may follow"),
        ("`a b`.c > 1", 1, "the whole name in backticks"),
        ("a > 1e999", 5, "too large"),
        ("a > True", 5, "neither a number nor a text"),
        ("(" * 300 + "a" + ")" * 300, 201, "too many nested parentheses"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text, place, reason):
    with pytest.raises(InputError, match=f"At character {place}: .*{reason}") as caught:
        parse(text)
    _, line, caret = str(caught.value).splitlines()
    assert line == f"    {text}" and caret == " " * (3 + place) + "^"


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a > 'x'", 5, "a number is needed here, this is a text"),
        ("a and `b c` > 1", 1, "a condition is needed here, this is a number"),
        ("meta.source < 'x'", 1, "a text cannot be compared like this"),
        ("meta.source + 1 > 2", 1, "a number is needed here, this is a text"),
        ("a in (1, 'x')", 10, "a number is needed here, this is a text"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(text, place, reason):
    with pytest.raises(InputError, match=f"The filter cannot be computed. At character {place}: {reason}"):
        passing(stored([(1.0, 1.0, "web")]), text, 1)


def test_a_score_is_a_number_and_a_filter_a_condition_of_columns_that_are_there():
    columns = stored([(1.0, 1.0, "web")])
    with pytest.raises(InputError, match=r"The score 'a > 1' is a condition: a number is needed"):
        scores_of(columns, "a > 1", 1)
    with pytest.raises(InputError, match=r"The filter 'a' is a number: a condition is needed, such as a > 0"):
        passing(columns, "a", 1)
    with pytest.raises(InputError, match=r"mean of 'meta.source', which is text"):
        scores_of(columns, {"meta.source": 1.0}, 1)
    with pytest.raises(
        InputError, match=r"asks for the column 'meta.sorce', but the index has none: take meta.source\."
    ):
        passing(columns, "meta.sorce == 'web'", 1)
