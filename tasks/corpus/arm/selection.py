"""Which documents an arm takes, and in which order, decided from the index alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tasks.corpus.pool.scores import has_ratings
from tasks.errors import InputError
from tasks.records.draws import CHUNK, ORDER, SELECT, TIES, gumbel, random_bits
from tasks.spec import Arm, Pool


@dataclass(frozen=True)
class CutOff:
    """The last score that a selection by score takes: how many documents have it, and how many of them are taken.

    `score` is None for documents without one.
    """

    score: float | None
    documents: int
    taken: int


@dataclass(frozen=True)
class PartTaken:
    """What a part added to its arm: `documents`. `again`: documents that it selects and an earlier part has, which count there."""

    select: str
    subset: str | None
    weight: float
    """Its share of the arm, 0 to 1."""
    documents: int
    again: int


@dataclass(frozen=True)
class Selection:
    """What an arm takes of a pool: document numbers in the arm's order, uint32 (k,).

    `population`: documents outside the holdout with the ratings that the arm asks for. `unrated`: those without.
    `cut_off`: None for a selection that does not cut by score. `parts`: what each part added, of an arm that mixes several.
    """

    documents: np.ndarray
    population: int
    unrated: int
    cut_off: CutOff | None
    parts: tuple[PartTaken, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What a plan and a manifest say of it."""
        cut = self.cut_off
        return {
            "population": self.population,
            "unrated_documents": self.unrated,
            "cut_off_score": cut.score if cut else None,
            "cut_off_documents": cut.documents if cut else None,
            "cut_off_taken": cut.taken if cut else None,
        } | ({"parts": [asdict(part) for part in self.parts]} if self.parts else {})


def ranked(keys: np.ndarray, documents: np.ndarray, seed: int) -> np.ndarray:
    """Positions that sort `keys`, int64 (n,); equal keys in the order of a draw for each of the `documents` (n,)."""
    order = np.argsort(keys)
    along = keys[order]
    equal = along[1:] == along[:-1]
    if equal.any():
        tied = np.zeros(len(keys), bool)
        tied[1:] = equal
        tied[:-1] |= equal
        del along
        places = np.flatnonzero(tied)
        group = np.cumsum(np.concatenate([[True], ~equal]), dtype=np.uint64)[places]
        # In the order of draws first, then sorted by key: NumPy's quicksort is vectorized but not stable, so a key and
        # the place in the order of draws share an integer.
        drawn = np.argsort(random_bits(seed, TIES, documents[order[places]]))
        packed = group[drawn]
        del group
        packed <<= np.uint64(32)
        packed |= np.arange(len(packed), dtype=np.uint64)
        packed.sort()
        packed &= np.uint64(0xFFFFFFFF)
        order[places] = order[places[drawn[packed]]]
    return order


def first(keys: np.ndarray, count: int, documents: np.ndarray, seed: int) -> np.ndarray:
    """Ascending positions of the first `count` that `ranked` would give. uint32."""
    if count >= len(keys):
        return np.arange(len(keys), dtype=np.uint32)
    limit = np.partition(keys, count - 1)[count - 1]
    chosen = keys < limit
    tied, left = np.flatnonzero(keys == limit), count - int(chosen.sum())
    if left < len(tied):
        tied = tied[np.argpartition(random_bits(seed, TIES, documents[tied]), left - 1)[:left]]
    chosen[tied] = True
    return np.flatnonzero(chosen).astype(np.uint32)


def selection_keys(arm: Arm, scores: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """A key for each of the documents, which have these scores: the selection takes those with the smallest keys."""
    if arm.select == "top":
        return -scores
    if arm.select == "bottom":
        return scores
    if arm.whole:
        return documents
    if arm.select == "random":
        return random_bits(arm.seed, SELECT, documents)
    # Top k by score / temperature + Gumbel noise draws without replacement with weights exp(score / temperature)
    # (Kool et al. 2019; QuRating, Wettig et al. 2024, section 3)
    keys = np.empty(len(scores))
    for i in range(0, len(scores), CHUNK):
        part = slice(i, i + CHUNK)
        keys[part] = -(scores[part] / arm.temperature + gumbel(arm.seed, documents[part]))
    return keys


def check(arm: Arm, pool: Pool, *, tokens_known: bool) -> None:
    """Raises InputError if the pool cannot serve the arm."""
    if pool.format == "unrated" and arm.select != "random" and not arm.whole:
        raise InputError(f"The arm {arm.name} has select={arm.select}, but the pool is unrated: use random or all.")
    if pool.format == "prebuilt" and arm.select != "random" and not arm.whole:
        raise InputError(
            f"The arm {arm.name} has select={arm.select}, but the pool is prebuilt and taken as it is: use all, subset or random."
        )
    known = [] if pool.format == "unrated" else list(pool.score)
    if unknown := [column for column in arm.population or () if column not in known]:
        raise InputError(
            f"The arm {arm.name} asks for documents rated by {', '.join(unknown)}, but the pool {pool.name} has "
            f"{'the score columns ' + ', '.join(known) if known else 'no score columns'}: name one of the pool's `score`."
        )
    if arm.sized_by_tokens and not tokens_known:
        asked = f"{arm.tokens:,} tokens" if arm.tokens is not None else "a share of the tokens"
        raise InputError(
            f"The arm {arm.name} asks for {asked}, but the pool has no column {pool.token_count_column!r} "
            "to count them: give a share of the documents instead, or token_count_column."
        )


def check_subset(arm: Arm, pool: Pool) -> None:
    """Raises InputError if the arm takes documents of a source that the pool does not have."""
    if arm.subset and arm.subset not in (pool.sources or ()):
        found = f"the sources {', '.join(pool.urls)}" if pool.sources else "a single source"
        raise InputError(
            f"The arm {arm.name} takes documents of {arm.subset}, but the pool {pool.name} has {found}: name one of data.sources."
        )


def select(
    arm: Arm,
    pool: Pool,
    scores: np.ndarray,
    rated: np.ndarray,
    tokens: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
    within: tuple[int, int] | None = None,
) -> Selection:
    """What the arm takes of a pool whose documents have these `scores`, `rated` bits and `tokens`, all (n,).

    A score is NaN for a document without one; a token count of -1 means unknown and counts as the mean of the known ones.
    `excluded` lists in ascending order the documents that may not be taken; `within`: the first document of those that may be, and
    the one after the last (default: all). Ties are drawn by the arm's seed, the same way for
    every share: a smaller share is part of a larger one. A share refers to the population, is rounded half up, and gives at
    least one document. A number or a share of tokens takes documents in the order of selection until it is reached. In a prebuilt pool,
    best-first is the order in which the documents are stored. Raises InputError.
    """
    check(arm, pool, tokens_known=tokens is not None)
    low, high = within or (0, len(scores))
    documents = np.arange(low, high, dtype=np.uint32)
    if excluded is not None:
        documents = np.delete(documents, excluded[(excluded >= low) & (excluded < high)] - low)
    free = len(documents)
    if required := arm.required_ratings(pool):
        documents = documents[has_ratings(rated[documents], pool, required)]
    population = len(documents)
    wanted = _tokens_wanted(arm, pool, tokens[documents]) if tokens is not None and arm.sized_by_tokens else None
    if arm.by_score:
        documents = documents[~np.isnan(scores[documents])]
    keys = selection_keys(arm, _lowest_if_unrated(scores[documents]), documents)
    if tokens is not None and wanted is not None:
        chosen = _until(wanted, arm, pool, keys, documents, tokens[documents])
    else:
        count = arm.documents or (population if arm.whole else max(1, int(arm.share * population + 0.5)))
        if count > population:
            raise InputError(
                f"The arm {arm.name} asks for {count:,} documents, but may take {population:,} of the pool {pool.name}: ask for fewer."
            )
        if count > len(documents):
            raise InputError(
                f"The arm {arm.name} asks for {count:,} of {population:,} documents, but only {len(documents):,} have a score: "
                "lower its share, or leave its population to the columns of the score."
            )
        chosen = first(keys, count, documents, arm.seed)
    del keys
    taken = documents[chosen]
    cut_off = _cut_off(arm, scores, documents, taken)
    return Selection(in_order(arm, pool, scores, taken), population, free - population, cut_off)


def _lowest_if_unrated(scores: np.ndarray) -> np.ndarray:
    """The scores with -inf for NaN, in place."""
    scores[np.isnan(scores)] = -np.inf
    return scores


def in_order(arm: Arm, pool: Pool, scores: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The documents `taken`, which ascend, in the arm's order."""
    if arm.order == "shuffled":
        return taken[np.argsort(random_bits(arm.seed, ORDER, taken))]
    if pool.format == "prebuilt":
        return taken if arm.order == "best-first" else taken[::-1]
    keys = _lowest_if_unrated(scores[taken])
    if arm.order == "best-first":
        np.negative(keys, out=keys)
    return taken[ranked(keys, taken, arm.seed)]


def _cut_off(arm: Arm, scores: np.ndarray, documents: np.ndarray, taken: np.ndarray) -> CutOff | None:
    """Where a top or bottom selection of `documents` was cut."""
    if arm.select not in ("top", "bottom") or not len(taken):
        return None
    among = _lowest_if_unrated(scores[taken])
    cut = float(among.min() if arm.select == "top" else among.max())
    shared = int((_lowest_if_unrated(scores[documents]) == cut).sum())
    return CutOff(cut if np.isfinite(cut) else None, shared, int((among == cut).sum()))


def _tokens_wanted(arm: Arm, pool: Pool, tokens: np.ndarray) -> int:
    """What an arm asks for of a population with these `tokens`: a number of them, or a share."""
    if len(tokens) and not (tokens >= 0).any():
        raise InputError(
            f"The arm {arm.name} is sized by tokens, but no document that it may take has its length in "
            f"{pool.token_count_column!r}: give a share of the documents instead."
        )
    if arm.tokens is not None:
        return arm.tokens
    return max(1, int(arm.share * int(_counted(tokens).sum(dtype=np.int64)) + 0.5))


def _counted(tokens: np.ndarray) -> np.ndarray:
    """Token counts with the mean of the known ones for those that are unknown."""
    known = tokens >= 0
    mean = round(tokens[known].mean()) if known.any() else 0
    return np.where(known, tokens, np.int32(mean))


def _until(
    wanted: int, arm: Arm, pool: Pool, keys: np.ndarray, documents: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    """Ascending positions of the fewest documents, in order of their keys, that hold the tokens `wanted`. uint32."""
    order = ranked(keys, documents, arm.seed)
    total = np.cumsum(_counted(tokens)[order], dtype=np.int64)
    held = int(total[-1]) if len(total) else 0
    if held < wanted:
        raise InputError(
            f"The arm {arm.name} asks for {wanted:,} tokens, but the documents that it may take of the pool {pool.name} "
            f"hold {held:,}: ask for fewer, or for a smaller share."
        )
    return np.sort(order[: int(np.searchsorted(total, wanted)) + 1]).astype(np.uint32)
