"""Scores of documents, and the filters of arms: computed from columns of the index, a slice at a time.

A value that is null, NaN or infinite is no rating. A document that lacks one of the columns with a weight above 0 has no weighted
mean; one for which an expression has no value has no score: NaN.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tasks.cores import cores
from tasks.corpus.pool.column import UNITS, StoredColumn
from tasks.corpus.pool.evaluate import evaluate
from tasks.errors import InputError
from tasks.expression import Kind, parse, require_columns
from tasks.spec import Score, columns_of

LEVELS = np.arange(11) / 10
SLICE = 1 << 16
"""Documents that are computed at a time by one thread: what lies between two operations stays in its cache."""
BLOCK = 1 << 21
"""Documents whose pages of the columns are in memory at a time."""


def composite(values: Mapping[str, np.ndarray], weights: Mapping[str, float], rows: int, units: int = 1) -> np.ndarray:
    """Weighted mean of the columns `values` (rows,) each, in multiples of 1/`units`: float64 (rows,); NaN where one is NaN, for no rating."""
    counted = {column: weight for column, weight in weights.items() if weight > 0}
    total = np.zeros(rows) if counted else np.full(rows, np.nan)
    for column, weight in counted.items():
        total += values[column] if weight == 1 else weight * values[column].astype(np.float64, copy=False)
    total /= units * sum(counted.values()) or 1
    return total


def scores_of(columns: Mapping[str, StoredColumn], score: Score, documents: int) -> np.ndarray:
    """The score of each document, float64 (documents,), NaN without one.

    Raises InputError when a column is not there, or an expression is no number.
    """
    used = _used(columns, columns_of(score), "The score")
    if isinstance(score, str):
        expression = parse(score)
        if (kind := _kind("The score", score, used)) != "number":
            raise InputError(f"The score {score!r} is a {kind}: a number is needed.")

        def part(where: slice) -> np.ndarray:
            found = evaluate(expression, lambda name: used[name].read(where), where.stop - where.start)
            return found.cast("float64").to_numpy(zero_copy_only=False)
    else:
        _require_numbers(used, "The score")
        # Sums of whole units are exact: the order of 4.1, 3.7 and 2.4 makes no score, breaks no tie and misses no threshold.
        exact = all(column.in_units for column in used.values())

        def part(where: slice) -> np.ndarray:
            values = {name: column.units(where) if exact else column.numbers(where) for name, column in used.items()}
            return composite(values, score, where.stop - where.start, UNITS if exact else 1)

    return _in_slices(part, documents, np.float64, used)


def passing(columns: Mapping[str, StoredColumn], where: str, documents: int) -> np.ndarray:
    """For which documents the filter is true, bool (documents,). Raises InputError when it cannot be computed."""
    expression = parse(where)
    used = _used(columns, expression.columns, "The filter")
    if (kind := _kind("The filter", where, used)) != "condition":
        raise InputError(f"The filter {where!r} is a {kind}: a condition is needed, such as {where} > 0.")

    def part(there: slice) -> np.ndarray:
        found = evaluate(expression, lambda name: used[name].read(there), there.stop - there.start)
        return (found.fill_null(False) if found.null_count else found).to_numpy(zero_copy_only=False)

    return _in_slices(part, documents, bool, used)


def rated(columns: Mapping[str, StoredColumn], wanted: Iterable[str], documents: int) -> np.ndarray:
    """Which documents have a value in each of the `wanted` columns, bool (documents,)."""
    used = _used(columns, tuple(wanted), "The population")

    def part(where: slice) -> np.ndarray:
        return np.logical_and.reduce([column.known(where) for column in used.values()])

    return _in_slices(part, documents, bool, used) if used else np.ones(documents, bool)


def quantiles(scores: np.ndarray, *, overwrite: bool = False) -> dict[str, float]:
    """Deciles of scores, by level; of no scores, nothing. NaN is no score. `overwrite`: the scores may be put in another order."""
    ordered = scores if overwrite else scores.copy()
    ordered.sort()  # vectorized, unlike the search for the places of eleven levels; NaN comes last
    known = ordered[: len(ordered) - int(np.count_nonzero(np.isnan(ordered)))]
    if not len(known):
        return {}
    found = np.quantile(known, LEVELS, overwrite_input=True)
    return {f"{level:g}": float(value) for level, value in zip(LEVELS, found, strict=True)}


def _used(columns: Mapping[str, StoredColumn], names: Iterable[str], what: str) -> dict[str, StoredColumn]:
    names = tuple(names)
    require_columns(what, names, list(columns), "the index")
    return {name: columns[name] for name in names}


def _kind(what: str, text: str, used: Mapping[str, StoredColumn]) -> Kind:
    try:
        return parse(text).kind({name: column.kind for name, column in used.items()})
    except InputError as error:
        raise InputError(f"{what} cannot be computed. {error}") from None


def _require_numbers(used: Mapping[str, StoredColumn], what: str) -> None:
    if texts := [name for name, column in used.items() if column.kind != "number"]:
        raise InputError(f"{what} is a mean of {texts[0]!r}, which is text: take columns of numbers.")


def _in_slices(
    part: Callable[[slice], np.ndarray], documents: int, kind: type, used: Mapping[str, StoredColumn]
) -> np.ndarray:
    """`part` of each slice of the documents, joined; on a few threads, since the kernels release the interpreter lock."""
    found = np.empty(documents, kind)

    def one(start: int) -> None:
        where = slice(start, min(start + SLICE, documents))
        found[where] = part(where)

    with ThreadPoolExecutor(min(4, cores())) as threads:
        for start in range(0, documents, BLOCK):
            for _ in threads.map(one, range(start, min(start + BLOCK, documents), SLICE)):
                pass
            for column in used.values():
                column.drop()
    return found
