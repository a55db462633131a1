"""What a selection has to know of the documents of a pool, computed from the columns that its arm asks for."""

from dataclasses import dataclass, field

import numpy as np

from tasks.corpus.pool.column import NOTHING, Wanted
from tasks.corpus.pool.index import Index
from tasks.corpus.pool.scores import passing, rated, scores_of
from tasks.errors import InputError
from tasks.expression import parse
from tasks.spec import Arm, Pool, Score, columns_of

MOST_GROUPS = 10_000


@dataclass(frozen=True)
class Traits:
    """Of each document: `scores` float64, NaN without one; `rated`, whether it has the ratings of the arm's population;
    `passing`, whether the arm's filters let it pass; `groups`, the number of the value that proportions are kept of, with
    `labels`. All (n,); None where the arm asks for no such thing."""

    scores: np.ndarray
    rated: np.ndarray | None = None
    passing: np.ndarray | None = None
    groups: np.ndarray | None = None
    labels: list[str] = field(default_factory=list)


def wanted_columns(arm: Arm, pool: Pool) -> tuple[Wanted, ...]:
    """The columns of the index that an arm of this pool needs. A file may lack one that only the population asks for."""
    arm = arm.of(pool)
    names = {*(parse(arm.where).columns if arm.where else ()), *([arm.match] if arm.match else ())}
    columns = [*score_columns(arm.score or {}, pool), *map(Wanted, sorted(names))]
    columns += [Wanted(name, may_lack="some") for name in arm.population or ()]
    columns += [Wanted(arm.id_column, "ids")] if arm.ids else []
    return tuple(dict.fromkeys(columns))


def score_columns(score: Score, pool: Pool) -> tuple[Wanted, ...]:
    """The columns of the index that a score needs; those of a prebuilt subset are read where they exist (`score_there`)."""
    if pool.format == "prebuilt":
        return tuple(Wanted(name, may_lack="all") for name in sorted({*columns_of(score), "score"}))
    return tuple(map(Wanted, columns_of(score)))


def score_there(index: Index, score: Score, pool: Pool) -> Score:
    """The score itself. A prebuilt subset is not ranked: its scores serve reports, and are read where they exist."""
    if pool.format != "prebuilt" or all(name in index.columns for name in columns_of(score)):
        return score
    return {"score": 1.0} if "score" in index.columns else {}


def traits_of(arm: Arm, pool: Pool, index: Index, listed: np.ndarray | None = None) -> Traits:
    """The traits of all documents. `listed`: which of them are on the arm's list of ids, bool (n,). Raises InputError."""
    arm, count = arm.of(pool), len(index)
    score, population = score_there(index, arm.score or {}, pool), arm.population or ()
    scores = scores_of(index.columns, score, count)
    has_ratings = None
    if population and not isinstance(score, str) and set(population) == set(columns_of(score)):
        has_ratings = ~np.isnan(scores)  # a mean has all of them
    elif population:
        has_ratings = rated(index.columns, population, count)
    passes = listed
    if arm.where:
        found = passing(index.columns, arm.where, count)
        passes = found if passes is None else passes & found
    groups, labels = _groups(arm.match, index) if arm.match else (None, [])
    return Traits(
        scores=scores,
        rated=has_ratings,
        passing=passes,
        groups=groups,
        labels=labels,
    )


def _groups(name: str, index: Index) -> tuple[np.ndarray, list[str]]:
    """The number of each document's value of a column, int32 (n,), and the values, a missing one last."""
    column = index.columns[name]
    if column.texts is not None:
        labels = [*column.texts.to_pylist(), "(none)"]
        groups = np.where(column.values == NOTHING, np.int32(len(labels) - 1), column.values)
    else:
        values, groups = np.unique(column.numbers(), return_inverse=True)  # NaN is one value, the last
        labels, groups = [f"{value:g}" for value in values], groups.astype(np.int32)
    column.drop()
    if len(labels) > MOST_GROUPS:
        raise InputError(
            f"The column {name!r} has {len(labels):,} different values: match by one with at most {MOST_GROUPS:,}."
        )
    return groups, labels
