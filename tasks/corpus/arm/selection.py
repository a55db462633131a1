"""Which documents an arm takes, and in which order, decided from the index alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tasks.corpus.arm.traits import Traits
from tasks.errors import InputError
from tasks.records.draws import CHUNK, ORDER, SELECT, TIES, gumbel, random_bits
from tasks.spec import Arm, Pool

SAMPLED = 1 << 16
"""Keys from which it is estimated where others lie."""


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
    """What an arm takes of a pool: document numbers in the arm's order, uint32 (k,), and their `scores`, float64 (k,).

    `population`: documents outside the holdout with the ratings that the arm asks for, which its filters let pass. `unrated`: those
    without the ratings, `filtered`: those that do not pass. `cut_off`: None for a selection that does not cut by score, or not at one.
    `parts`: what each part added, of an arm that mixes several.
    """

    documents: np.ndarray
    scores: np.ndarray
    population: int
    unrated: int
    filtered: int
    cut_off: CutOff | None
    parts: tuple[PartTaken, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What a plan and a manifest say of it."""
        cut = self.cut_off
        return {
            "population": self.population,
            "unrated_documents": self.unrated,
            "filtered_documents": self.filtered,
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
    limit = smallest(keys, count)
    chosen = keys < limit
    tied, left = np.flatnonzero(keys == limit), count - int(chosen.sum())
    if left < len(tied):
        tied = tied[np.argpartition(random_bits(seed, TIES, documents[tied]), left - 1)[:left]]
    chosen[tied] = True
    return positions(chosen)


def smallest(keys: np.ndarray, count: int) -> np.number:
    """The `count`-th smallest of the keys (n,).

    A sample says between which two it lies, and only those between are ordered: a copy of all keys takes longer than that.
    """
    among, below = keys, 0
    if len(keys) > SAMPLED:
        sample = np.sort(keys[:: len(keys) // SAMPLED])
        place, margin = count * len(sample) // len(keys), int(4 * len(sample) ** 0.5)
        low, high = sample[max(place - margin, 0)], sample[min(place + margin, len(sample) - 1)]
        less = int(np.count_nonzero(keys < low))
        between = keys >= low
        between &= keys <= high
        if less < count <= less + int(np.count_nonzero(between)):
            among, below = keys[between], less
    return np.partition(among, count - below - 1)[count - below - 1]


def positions(flags: np.ndarray) -> np.ndarray:
    """Ascending positions of those of the `flags`, bool (n,), that are set. uint32."""
    found, filled = np.empty(np.count_nonzero(flags), np.uint32), 0
    for start in range(0, len(flags), CHUNK):  # of 64 bits each they would take twice the memory
        part = np.flatnonzero(flags[start : start + CHUNK])
        np.add(part, start, out=found[filled : filled + len(part)], casting="unsafe")
        filled += len(part)
    return found


def selection_keys(arm: Arm, scores: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """A key for each of the documents, which have these scores: the selection takes those with the smallest keys.

    `scores` may be overwritten.
    """
    if arm.select == "top":
        return np.negative(scores, out=scores)
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
    if not arm.score and arm.select != "random" and not arm.whole:
        raise InputError(
            f"The arm {arm.name} has select={arm.select}, but the pool is unrated: use random or all, or give the arm a score."
        )
    if pool.format == "prebuilt" and arm.select != "random" and not arm.whole:
        raise InputError(
            f"The arm {arm.name} has select={arm.select}, but the pool is prebuilt and taken as it is: use all, subset or random."
        )
    if arm.sized_by_tokens and not tokens_known:
        asked = f"{arm.tokens:,} tokens" if arm.tokens is not None else "a share of the tokens"
        column = pool.token_count_column
        lacks = f"column {column!r} to count them" if column else "column of lengths in tokens"
        raise InputError(
            f"The arm {arm.name} asks for {asked}, but the pool has no {lacks}: give a share of the documents instead, or "
            "token_count_column."
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
    traits: Traits,
    tokens: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
    within: tuple[int, int] | None = None,
) -> Selection:
    """What the arm takes of a pool whose documents have these `traits` and `tokens` (n,).

    A token count of -1 means unknown and counts as the mean of the known ones. `excluded` lists in ascending order the documents that
    may not be taken; `within`: the first document of those that may be, and the one after the last (default: all). Ties are drawn by
    the arm's seed, the same way for every share: a smaller share is part of a larger one. A share refers to the population, is
    rounded half up, and gives at least one document; with `match` it is divided among groups by `quotas`. A number or a share of
    tokens takes documents in the order of selection until it is reached. In a prebuilt pool, best-first is the order in which the
    documents are stored. Raises InputError.
    """
    arm = arm.of(pool)
    check(arm, pool, tokens_known=tokens is not None)
    scores = traits.scores
    low, high = within or (0, len(scores))
    allowed = np.zeros(len(scores), bool)
    allowed[low:high] = True
    if excluded is not None:
        allowed[excluded] = False
    free = int(allowed.sum())
    if traits.rated is not None:
        allowed &= traits.rated
    rated = int(allowed.sum())
    proportions = None
    if traits.groups is not None:
        proportions = np.bincount(traits.groups[allowed], minlength=len(traits.labels))
    if traits.passing is not None:
        allowed &= traits.passing
    population = int(allowed.sum())
    if not population and rated:
        raise InputError(f"{_filters(arm)} leaves none of {rated:,} documents: loosen it.")
    if not rated and free:
        columns = ", ".join(arm.population or ())
        raise InputError(
            f"None of the {free:,} documents that the arm {arm.name} may take has the ratings that it asks for ({columns}): name others."
        )
    wanted = _tokens_wanted(arm, pool, tokens[allowed]) if tokens is not None and arm.sized_by_tokens else None
    if arm.by_score:
        allowed &= ~np.isnan(scores)
    if arm.min_score is not None:
        documents = positions(allowed)
        chosen = _reaching(arm, scores[documents])
    elif tokens is not None and wanted is not None:
        documents = positions(allowed)
        keys = selection_keys(arm, _lowest_if_unrated(scores[documents]), documents)
        chosen = _until(wanted, arm, pool, keys, documents, tokens[documents])
        del keys
    else:
        count = _documents_wanted(arm, pool, population, int(allowed.sum()))
        documents = positions(allowed if proportions is not None else _within_reach(arm, scores, allowed, count))
        keys = selection_keys(arm, _lowest_if_unrated(scores[documents]), documents)
        if proportions is None:
            chosen = first(keys, count, documents, arm.seed)
        else:
            chosen = _matched(arm, traits, keys, documents, quotas(proportions, count))
        del keys
    taken = documents[chosen]
    cut_off = None if arm.match else _cut_off(arm, scores, allowed, taken)
    ordered = in_order(arm, pool, scores, taken)
    return Selection(ordered, scores[ordered], population, free - rated, rated - population, cut_off)


def _documents_wanted(arm: Arm, pool: Pool, population: int, known: int) -> int:
    """How many documents an arm asks for of a population of which so many may be taken, `known`."""
    count = arm.documents or (population if arm.whole else max(1, int(arm.share * population + 0.5)))
    if count > population:
        raise InputError(
            f"The arm {arm.name} asks for {count:,} documents, but may take {population:,} of the pool {pool.name}: ask for fewer."
        )
    if count > known:
        raise InputError(
            f"The arm {arm.name} asks for {count:,} of {population:,} documents, but only {known:,} have a score: "
            "lower its share, or leave its population to the columns of the score."
        )
    return count


def _within_reach(arm: Arm, scores: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """Those of the documents `allowed`, bool (n,), that may be among the first `count`: of a selection of the best all but those
    whose score is well below the cut, which a sample tells. bool (n,)."""
    if arm.select != "top":
        return allowed
    step = max(1, len(scores) // SAMPLED)
    sample = np.sort(scores[::step][allowed[::step]])  # NaN comes last
    place = int(len(sample) * (1 - count / np.count_nonzero(allowed)) - 4 * len(sample) ** 0.5)
    if place <= 0 or np.isnan(sample[-1]):
        return allowed
    near: np.ndarray = scores >= sample[place]
    near &= allowed
    return near if np.count_nonzero(near) >= count else allowed


def quotas(proportions: np.ndarray, count: int) -> np.ndarray:
    """`count` divided among groups by their `proportions` (g,), int64 (g,): each whole part, and one more for the largest
    remainders (Hamilton's method), of equal ones for the first."""
    # Numbers of documents are below 2**32, so their products fit.
    whole, remainder = np.divmod(proportions.astype(np.uint64) * np.uint64(count), np.uint64(proportions.sum()))
    quota = whole.astype(np.int64)
    quota[np.argsort(-remainder.astype(np.float64), kind="stable")[: count - int(quota.sum())]] += 1
    return quota


def _matched(arm: Arm, traits: Traits, keys: np.ndarray, documents: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Ascending positions of the documents of the smallest keys in each group, as many as its quota. uint32."""
    groups = traits.groups[documents]
    by_group = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[by_group], np.arange(len(quota) + 1))
    chosen = []
    for group in np.flatnonzero(quota).tolist():
        within = by_group[bounds[group] : bounds[group + 1]]
        if quota[group] > len(within):
            raise InputError(
                f"The arm {arm.name} matches {arm.match}: {quota[group]:,} documents of {traits.labels[group]!r} are needed, and it may "
                f"take {len(within):,}: lower its share, or loosen its filters."
            )
        chosen.append(within[first(keys[within], int(quota[group]), documents[within], arm.seed)])
    return np.sort(np.concatenate(chosen)).astype(np.uint32)


def _reaching(arm: Arm, scores: np.ndarray) -> np.ndarray:
    """Ascending positions of the scores that reach the arm's threshold. uint32."""
    chosen = positions(scores >= arm.min_score)
    if not len(chosen):
        known = scores[~np.isnan(scores)]
        best = f"the highest score is {known.max():g}" if len(known) else "no document has a score"
        raise InputError(
            f"The arm {arm.name} takes documents with a score of {arm.min_score:g} or more, but {best}: lower min_score."
        )
    return chosen


def _filters(arm: Arm) -> str:
    """The arm's filters, for a message."""
    given = {"where": arm.where, "ids": arm.ids}
    return f"The arm {arm.name} with " + " and ".join(f"{name}={value!r}" for name, value in given.items() if value)


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


def _cut_off(arm: Arm, scores: np.ndarray, allowed: np.ndarray, taken: np.ndarray) -> CutOff | None:
    """Where a top or bottom selection of the documents `allowed`, bool (n,), was cut."""
    if arm.select not in ("top", "bottom") or not len(taken):
        return None
    among = _lowest_if_unrated(scores[taken])
    cut = float(among.min() if arm.select == "top" else among.max())
    equal = scores == cut if np.isfinite(cut) else np.isnan(scores)
    shared = int((equal & allowed).sum())
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
