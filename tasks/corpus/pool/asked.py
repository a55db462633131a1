"""Columns that a pool is asked for and lacks: said all at once, with what to write instead."""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from tasks.corpus.parquet.footer import (
    NUMBERS,
    BadFile,
    Footer,
    rating_column,
    read_footer,
    single_values,
    value_column,
    value_types,
)
from tasks.corpus.pool.column import Wanted
from tasks.corpus.pool.handle import PoolHandle
from tasks.corpus.pool.partitions import folder_columns
from tasks.corpus.pool.sources import address, is_held_out
from tasks.errors import InputError
from tasks.spec import Pool, columns_of

SHOWN = 20
LIKELY = 3  # columns of ratings at most that nobody named
RATING = re.compile(r"score|rating|quality|average|educ", re.IGNORECASE)
NO_RATING = re.compile(r"(^|_)(id|idx|index|count|length|len|size|year|offset|tokens?|bytes)$", re.IGNORECASE)
ID_NAME = re.compile(r"(^|_)(id|uuid|guid|urn|key)$", re.IGNORECASE)
TEXT_NAMES = ("content", "body", "document", "raw_content", "page_content", "markdown", "passage", "article")


def require_asked(handle: PoolHandle, wanted: Sequence[Wanted]) -> None:
    """Look into the first, the middle and the last file. Raises InputError naming every column that none of them has; a file that
    cannot be read, or that alone lacks one, is for the index to name.
    """
    footers = _looked_into(handle)
    if footers and (said := lacking(handle.pool, wanted, footers, folder_columns(handle.readable))):
        raise InputError(f"{handle.pool.address} has {said}.")


def require_values(handle: PoolHandle, columns: Sequence[str], numbers: Sequence[str] = ()) -> None:
    """Look into the same files. Raises InputError naming a column that all of them that have it have as what is neither number nor text,
    or one of `numbers` that is neither number nor truth value.
    """
    folders, footers = folder_columns(handle.readable), _looked_into(handle)
    kinds = [*((name, value_column) for name in columns), *((name, rating_column) for name in numbers)]
    for column, kind in kinds:
        faults = [_fault(footer, column, kind) for footer in footers if column in single_values(footer)]
        if column not in folders and faults and (first := faults[0]) and all(faults):
            raise InputError(f"{address(handle.pool, first.name)} {first.reason}; take another column.")


def _looked_into(handle: PoolHandle) -> list[Footer]:
    """The footers of the first, the middle and the last file; none when one of them cannot be read."""
    blobs = [blob for blob in handle.readable if not is_held_out(blob) and blob.name not in handle.problems]
    store, footers = handle.source(), []
    for number in sorted({0, len(blobs) // 2, len(blobs) - 1}) if blobs else ():
        blob = blobs[number]
        try:
            footers.append(
                read_footer(blob.name, blob.size, lambda r, blob=blob: store.read_range(blob, r.start, r.end))[0]
            )
        except BadFile:
            return []
    return footers


def _fault(footer: Footer, column: str, kind: Callable[[Footer, str], int]) -> BadFile | None:
    """Why a column cannot be read as `kind` says (value_column, rating_column), if it cannot."""
    try:
        place = kind(footer, column)
        for group in range(len(footer.rows)):
            footer.chunk(group, place)
    except BadFile as error:
        return error
    return None


def lacking(pool: Pool, wanted: Iterable[Wanted], footers: Sequence[Footer], folders: Iterable[str]) -> str:
    """`no column 'text' (it has content, url): --set text_column=content`, of the columns that no footer has and no folder is."""
    wanted = [one for one in wanted if one.name not in folders]
    leaves = [leaf for footer in footers for leaf in footer.leaves]
    there = {leaf.path: leaf.physical_type for leaf in leaves if not leaf.max_repetition_level}
    text = pool.text_column not in there
    ids = [one.name for one in wanted if one.use == "ids" and one.name not in there]
    values = [one.name for one in wanted if one.use == "values" and one.may_lack != "all" and one.name not in there]
    missing = list(dict.fromkeys([*([pool.text_column] if text else []), *values, *ids]))
    if not missing:
        return ""
    fields = {"text_column": _text(there, footers)} if text else {}
    named_so = [name for name in there if ID_NAME.search(name)]
    fields |= {"id_column": _near(ids[0], named_so or there)} if ids else {}
    advice: list[str] = []
    if set(values) & set(columns_of(pool.score)):
        found = ratings(pool, there)
        fields |= {"score": json.dumps(dict.fromkeys(found[:LIKELY], 1))} if found else {"format": "unrated"}
    else:
        advice = [f"take {near} instead of {name}" for name in values if (near := _near(name, there))]
    if given := " ".join(f"--set {name}={shlex.quote(value)}" for name, value in fields.items() if value):
        advice.insert(0, given)
    names = [*list(there)[:SHOWN], *(["..."] if len(there) > SHOWN else [])]
    unnamed = [] if "score" in pool.model_fields_set else columns_of(pool.score)
    if not set(unnamed) <= set(values):  # some of them are there: the others are lacking indeed
        unnamed = []
    asked = [name for name in missing if name not in unnamed]
    said = [f"no column{'s' * (len(asked) > 1)} {', '.join(map(repr, asked))}"] if asked else []
    said += ["no ratings by their default names"] if unnamed else []
    return f"{' and '.join(said)} (it has {', '.join(names)}): {', '.join(advice) or 'ask for others'}"


def likely_columns(pool: Pool, footers: Sequence[Footer]) -> dict[str, Any]:
    """The columns of text and of ratings ({"text_column": name or None, "score": names, "others": names}): the pool's own where they are there,
    else the likeliest. Others are further columns of numbers that may be ratings.
    """
    there = {name: kind for each in footers for name, kind in value_types(each).items()}
    likely = ratings(
        pool, {name: there[name] for name in there if not name.startswith("language")}
    )  # a detector's confidence
    own = columns_of(pool.score)
    score = list(own) if all(name in there for name in own) else likely[:LIKELY]
    return {
        "text_column": pool.text_column if pool.text_column in there else _text(there, footers),
        "score": score,
        "others": [name for name in _numbers(pool, there) if name not in score and not NO_RATING.search(name)],
    }


def ratings(pool: Pool, kinds: Mapping[str, str]) -> list[str]:
    """Columns of numbers that are the pool's ratings, or likely some: by their names, else all but counts and ids."""
    numbers = _numbers(pool, kinds)
    likely = [name for name in numbers if RATING.search(name)] or [
        name for name in numbers if not NO_RATING.search(name)
    ]
    return [name for name in numbers if name in likely or name in columns_of(pool.score)]


def _numbers(pool: Pool, kinds: Mapping[str, str]) -> list[str]:
    return [name for name, kind in kinds.items() if kind in NUMBERS and name != pool.token_count_column]


def _text(there: Mapping[str, str], footers: Sequence[Footer]) -> str | None:
    """The column of text that holds the documents: by its name, else the one with the most bytes."""
    texts = [name for name, kind in there.items() if kind == "BYTE_ARRAY"]
    if named := [name for name in TEXT_NAMES if name in texts]:
        return named[0]
    sizes = dict.fromkeys(texts, 0)
    for footer in footers:
        for number, leaf in enumerate(footer.leaves):
            if leaf.path in sizes and number not in footer.encrypted:
                sizes[leaf.path] += sum(footer.chunk(group, number).decompressed for group in range(len(footer.rows)))
    return max(sizes, key=sizes.__getitem__, default=None)


def _near(name: str, there: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, list(there), 1, 0.0)), None)
