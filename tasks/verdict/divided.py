"""The holdout by a column of its pool: texts by value, numbers by fifths, what is rare together.

A text value gets a part of its own if it is among the `MOST` most frequent and at least `RARE` of the documents have it; all others share
one. The same goes for numbers with up to `FEW` different values, such as years or whole ratings; other numbers are cut into `PARTS` parts
with equally many documents, equal numbers staying together. Documents without a value are a part too.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.errors import InputError
from tasks.escaping import plain
from tasks.records.division import read_division
from tasks.records.layout import PoolFolder
from tasks.store.root import Root

MOST = 20
RARE = 0.01
FEWEST = 10
"""Documents of a value that is not rare, in small holdouts."""
FEW = 10
PARTS = 5
SHOWN = 40
"""Characters of a value, of a longer one its beginning and its end."""
NOTHING, BLANK = "no value", "an empty text"

Parts = tuple[np.ndarray, list[str]]
"""(code of each document, (documents,); label of each code)."""


def divide(root: Root, pool: str, columns: Sequence[str]) -> dict[str, Parts]:
    """{column: parts} of the holdout of a pool. Raises InputError when a column was not read for it, or makes no parts of it."""
    made = {column: root.open(PoolFolder(pool).division(column)) for column in columns}
    root.require_current([artifact.manifest for artifact in made.values()])
    return {column: parts_of(column, read_division(artifact.path)) for column, artifact in made.items()}


def parts_of(column: str, values: pa.Array) -> Parts:
    """The parts by the values of one column, float64 or strings, null for none. Raises InputError when there are fewer than two."""
    missing = np.asarray(values.is_null())
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        known = numbers[~missing]
        distinct, at = np.unique(known, return_inverse=True)
        names = [_written(value, 6) for value in distinct]
        found, labels = _by_value(at, names, by_size=False) if len(distinct) <= FEW else _by_size(known)
    else:
        encoded = values.filter(pa.array(~missing)).dictionary_encode()
        names = [_short(plain(text)) for text in encoded.dictionary.to_pylist()]
        found, labels = _by_value(encoded.indices.to_numpy(), names, by_size=True)
    if len(labels) < 2:
        raise InputError(
            f"The column {column!r} makes no parts of the holdout: {f'all of it is {labels[0]}' if labels else 'it has no value there'}. Take "
            "another for strata."
        )
    codes = np.full(len(values), len(labels))
    codes[~missing] = found
    return codes, [f"{column}: {label}" for label in _distinct([*labels, *[NOTHING] * bool(missing.any())])]


def _by_value(codes: np.ndarray, names: list[str], *, by_size: bool) -> Parts:
    """A part for each value, (documents,) codes of `names`; the rare ones are one, the last."""
    counts = np.bincount(codes, minlength=len(names))
    largest = np.argsort(-counts, kind="stable")[:MOST]
    kept = largest[counts[largest] >= max(FEWEST, RARE * len(codes))]
    kept = kept if by_size else np.sort(kept)
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    rare = len(names) - len(kept)
    return place[codes], [names[i] for i in kept] + [f"{rare} rare values"] * bool(rare)


def _by_size(numbers: np.ndarray) -> Parts:
    """Parts with equally many documents, lowest first, as far as equal numbers allow."""
    edges = np.unique(np.quantile(numbers, np.arange(1, PARTS) / PARTS, method="inverted_cdf"))
    edges = edges[edges < numbers.max()]
    codes = np.searchsorted(edges, numbers, side="left")
    inside = [numbers[codes == code] for code in range(len(edges) + 1)]
    return codes, [f"{_written(part.min(), 4)} to {_written(part.max(), 4)}" for part in inside]


def _written(value: float, digits: int) -> str:
    """A number: whole ones, such as dates, in full."""
    return f"{value:.0f}" if value == np.rint(value) and abs(value) < 1e15 else f"{value:.{digits}g}"


def _short(text: str) -> str:
    if not text.strip():
        return BLANK
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]}…{text[1 - half :]}"


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels that are alike, numbered."""
    seen: Counter[str] = Counter()
    found = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found
