"""What a store holds, before anything is prepared, from the footers of all files and a few row groups of text and scores.

Nothing else is read. A survey of 3,250 files of a rated web corpus takes seconds and some hundred megabytes of footers.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.corpus.lines import is_lines, write_columns
from tasks.corpus.parquet.footer import BadFile, Footer, chunk_range, column_index, read_footer, top_name, value_types
from tasks.corpus.parquet.ranges import Range, coalesce, read_parts
from tasks.corpus.parquet.reading import decode
from tasks.corpus.pool.asked import LIKELY, lacking, likely_columns, ratings
from tasks.corpus.pool.column import Wanted, numbers, widened
from tasks.corpus.pool.partitions import folder_columns
from tasks.corpus.pool.scores import composite, quantiles
from tasks.corpus.pool.sources import list_place
from tasks.errors import InputError
from tasks.spec import Pool, columns_of
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob, Blobs

IN_FLIGHT = 32
ROW_GROUPS = 8
"""Row groups to read for quantiles, correlations and sample documents, spread evenly over the files."""

EXCERPT = 300
"""Characters shown of a document."""

SHARE = 0.165


def survey(url: str, *, pool: Pool | None = None, ids: str | None = None, samples: int = 3) -> dict[str, Any]:
    """What a URL holds, JSON-ready: files, rows, schema and its variations, bytes per column, ratings, sample documents.

    `pool` names the text and score columns (default: those of a rated pool), `ids` that of ids, if one is needed. `samples` documents each are shown from the top,
    the middle and the bottom. Raises InputError if there is nothing to survey.
    """
    pool = pool or Pool(source=url)
    source = open_blobs(url)
    blobs = list_place(url)
    if is_lines(blobs[0].name):
        return _survey_lines(url, source, blobs, pool, ids, samples)
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        read = list(threads.map(lambda blob: _footer(source, blob), blobs))
    bad = [str(footer) for footer in read if isinstance(footer, BadFile)]
    good = [(blob, footer) for blob, footer in zip(blobs, read, strict=True) if not isinstance(footer, BadFile)]
    if not good:
        raise InputError(f"None of the {len(blobs)} files under {url} can be read; the first: {bad[0]}.")
    rows = [footer.metadata.num_rows for _, footer in good]
    columns = _columns([footer for _, footer in good])
    footer_bytes = source.counters.bytes_read
    looked = _look(source, good, pool, samples)
    text = columns.get(pool.text_column, {"bytes": 0, "bytes_decoded": 0})
    scores = sum(columns[name]["bytes"] for name in (*pool.score, pool.token_count_column) if name in columns)
    raw = sum(blob.size for blob in blobs)
    asked = [Wanted(name) for name in columns_of(pool.score)] if pool.format == "rated" else []
    asked += [Wanted(ids, "ids")] if ids else []
    folders = folder_columns(blobs)
    for name, count in folders.items():
        columns.setdefault(name, {"types": {"folder": count}, "files": count, "bytes": 0, "bytes_decoded": 0})
    return {
        "url": url,
        "fault": lacking(pool, asked, [footer for _, footer in good], folders) or None,
        "likely_columns": likely_columns(pool, [footer for _, footer in good]),
        "files": len(blobs),
        "bytes": raw,
        "bad_files": bad,
        "documents": sum(rows),
        "documents_per_file": _spread(rows),
        "row_groups": sum(len(footer.rows) for _, footer in good),
        "rows_per_row_group": _spread([rows for _, footer in good for rows in footer.rows]),
        "columns": columns,
        "schemas": _schemas(good),
        **looked,
        "arm": {
            "share": SHARE,
            "documents": int(sum(rows) * SHARE),
            "bytes_to_read": footer_bytes + scores + text["bytes"],
            "part_of_all_bytes": round((footer_bytes + scores + text["bytes"]) / raw, 4),
            "text_bytes": int(text["bytes_decoded"] * SHARE),
        },
        "read": dict(vars(source.counters)),
    }


def _survey_lines(
    url: str, source: Blobs, blobs: Sequence[Blob], pool: Pool, ids: str | None, samples: int
) -> dict[str, Any]:
    """The same of JSON lines, by the beginnings of some files."""
    chosen = [blobs[i] for i in np.unique(np.linspace(0, len(blobs) - 1, ROW_GROUPS).astype(int))]
    bad = []
    with TemporaryDirectory() as folder:
        for number, blob in enumerate(chosen):
            path = Path(folder) / f"{number}.parquet"
            try:
                write_columns(blob.name, blob.size, partial(source.read_range, blob), path, blocks=1)
            except BadFile as error:
                bad.append(str(error))
                path.unlink(missing_ok=True)
        if len(bad) == len(chosen):
            raise InputError(f"None of {len(chosen)} files under {url} can be read; the first: {bad[0]}.")
        found = survey(folder, pool=pool, ids=ids, samples=samples)
    return found | {
        "url": url,
        "files": len(blobs),
        "bytes": sum(blob.size for blob in blobs),
        "bad_files": bad,
        "schemas": [{**each, "example": chosen[int(each["example"].split(".")[0])].name} for each in found["schemas"]],
        "note": f"JSON lines: documents, columns and ratings are those of the first lines of {len(chosen) - len(bad)} files.",
        "arm": {"share": SHARE, "bytes_to_read": sum(blob.size for blob in blobs), "part_of_all_bytes": 1.0},
        "read": dict(vars(source.counters)),
    }


def _footer(source: Blobs, blob: Blob) -> Footer | BadFile:
    try:
        footer, _ = read_footer(blob.name, blob.size, lambda r: source.read_range(blob, r.start, r.end))
        _ = footer.encrypted  # found damaged here or not at all
        return footer
    except BadFile as error:
        return error


def _columns(footers: Sequence[Footer]) -> dict[str, dict[str, Any]]:
    """Per top-level column: its types and how often each occurs, and its bytes in all files."""
    types: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for footer in footers:
        names = list(map(top_name, footer.leaves))
        locked = {names[i] for i in footer.encrypted}
        for field in footer.metadata.schema.to_arrow_schema():
            types[field.name][f"{field.type} (encrypted)" if field.name in locked else str(field.type)] += 1
        for group in range(len(footer.rows)):
            for i, name in enumerate(names):
                if i in footer.encrypted:
                    continue
                chunk = footer.chunk(group, i)
                sizes[name][0] += chunk.compressed
                sizes[name][1] += chunk.decompressed
    return {
        name: {
            "types": dict(kinds),
            "files": sum(kinds.values()),
            "bytes": sizes[name][0],
            "bytes_decoded": sizes[name][1],
        }
        for name, kinds in types.items()
    }


def _schemas(files: Sequence[tuple[Blob, Footer]]) -> list[dict[str, Any]]:
    """The distinct schemas, most common first, each with its number of files and an example."""
    found: dict[str, list[str]] = defaultdict(list)
    for blob, footer in files:
        schema = footer.metadata.schema.to_arrow_schema()
        found[", ".join(f"{field.name}: {field.type}" for field in schema)].append(blob.name)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [{"schema": schema, "files": len(names), "example": names[0]} for schema, names in ordered]


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"least": int(min(values)), "median": float(np.median(values)), "most": int(max(values))}


def _look(source: Blobs, files: Sequence[tuple[Blob, Footer]], pool: Pool, samples: int) -> dict[str, Any]:
    """Ratings and documents of a few row groups: quantiles per score column, correlations, examples by composite score."""
    places = [(i, group) for i, (_, footer) in enumerate(files) for group, rows in enumerate(footer.rows) if rows]
    if not places:
        return {"ratings": {}, "correlations": {}, "examples": {}}
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, ROW_GROUPS).astype(int))]
    tables, wanted = [], []
    for number, group in chosen:
        blob, footer = files[number]
        numeric = ratings(pool, value_types(footer))
        wanted = [name for name in numeric if not wanted or name in wanted] or wanted
        tables.append(_rows(source, blob, footer, group, pool.text_column, numeric))
    shared = [name for name in wanted if all(name in table.column_names for table in tables)]
    has_text = all(pool.text_column in table.column_names for table in tables)
    values = {}
    for name in shared:
        with contextlib.suppress(pa.ArrowNotImplementedError):  # a duration, for one, which preparing refuses too
            values[name] = np.concatenate([widened(numbers(table.column(name))) for table in tables])
    texts = [text for table in tables for text in table.column(pool.text_column).chunks] if has_text else []
    documents = sum(table.num_rows for table in tables)
    found = {}
    for name, column in values.items():
        finite = column[np.isfinite(column)]
        found[name] = {
            "nulls": int(len(column) - len(finite)),
            "quantiles": quantiles(finite),
        }
    result: dict[str, Any] = {
        "looked_at": {"row_groups": len(chosen), "documents": documents},
        "ratings": found,
        "correlations": _correlations(values),
        "examples": {},
    }
    weights = {name: pool.score[name] for name in columns_of(pool.score)}
    if not all(name in values for name in weights):
        weights = dict.fromkeys(list(values)[:LIKELY], 1.0)
    if has_text and weights:
        result["ranked_by"] = weights
        rated = {name: np.where(np.isfinite(values[name]), values[name], np.nan) for name in weights}
        scores = composite(rated, weights, documents)
        result["composite"] = quantiles(scores)
        order = np.argsort(-scores, kind="stable")[: int(np.isfinite(scores).sum())]  # NaN comes last
        middle = max(0, (len(order) - samples) // 2)
        cuts = {"top": order[:samples], "middle": order[middle : middle + samples], "bottom": order[-samples:]}
        result["examples"] = {
            where: [{"score": float(scores[i]), "text": _excerpt(texts, int(i))} for i in rows]
            for where, rows in cuts.items()
        }
    elif has_text:
        result["examples"] = {"any": [{"text": _excerpt(texts, i)} for i in range(min(samples, documents))]}
    return result


def _excerpt(chunks: Sequence[pa.Array], place: int) -> str:
    """The beginning of a text; bytes that are no UTF-8 are shown as the replacement character."""
    for chunk in chunks:
        if place < len(chunk):
            found = chunk[place : place + 1]
            if pa.types.is_dictionary(found.type):
                found = found.dictionary_decode()
            if pa.types.is_primitive(found.type):  # numbers, which a person named as text
                found = found.cast(pa.large_string())
            value = found.cast(pa.large_binary())[0].as_py() or b""
            return str(value.decode(errors="replace")[:EXCERPT])
        place -= len(chunk)
    return ""


def _rows(
    source: Blobs,
    blob: Blob,
    footer: Footer,
    group: int,
    text: str,
    numeric: Sequence[str],
) -> pa.Table:
    columns = _usable(footer, [*numeric, text])
    try:
        ranges: list[Range] = [chunk_range(blob.size, footer, group, leaf) for leaf in columns.values()]
        parts = read_parts(source, blob, coalesce(ranges))
        return decode(blob.size, footer, parts, [group], list(columns))
    except BadFile as error:
        raise InputError(f"{source.url}/{error}: repair or remove the file.") from error


def _usable(footer: Footer, columns: Sequence[str]) -> dict[str, int]:
    """Positions of those columns that are there, once, not nested and not encrypted."""
    found = {}
    for column in columns:
        try:
            found[column] = column_index(footer, column)
        except BadFile:
            continue
    return {column: place for column, place in found.items() if place not in footer.encrypted}


def _correlations(values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Pearson's r of each pair of columns, over the documents that have both."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    names = list(values)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            both = np.isfinite(values[a]) & np.isfinite(values[b])
            if both.sum() > 1 and values[a][both].std() > 0 and values[b][both].std() > 0:
                found[a][b] = round(float(np.corrcoef(values[a][both], values[b][both])[0, 1]), 4)
    return dict(found)
