"""Which documents an arm takes, and in which order, decided from the index alone."""

import numpy as np

from tasks.errors import InputError
from tasks.records.draws import CHUNK, ORDER, SELECT, gumbel, random_bits
from tasks.spec import Arm, Pool


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Positions that sort `keys`, ties by position, int64 (n,): NumPy's stable sort in half the time.

    NumPy's quicksort is vectorized but leaves ties in any order, so ties are sorted afterwards.
    """
    order = np.argsort(keys)
    ranked = keys[order]
    equal = ranked[1:] == ranked[:-1]
    if equal.any():
        tied = np.zeros(len(keys), bool)
        tied[1:] = equal
        tied[:-1] |= equal
        del ranked
        places = np.flatnonzero(tied)
        packed = np.cumsum(np.concatenate([[True], ~equal]), dtype=np.uint64)[places]
        packed <<= np.uint64(32)
        packed |= order[places].astype(np.uint64)
        packed.sort()
        packed &= np.uint64(0xFFFFFFFF)
        order[places] = packed
    return order


def first(keys: np.ndarray, count: int) -> np.ndarray:
    """Ascending positions of the `count` smallest keys, ties by position. uint32."""
    if count >= len(keys):
        return np.arange(len(keys), dtype=np.uint32)
    limit = np.partition(keys, count - 1)[count - 1]
    chosen = keys < limit
    chosen[np.flatnonzero(keys == limit)[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen).astype(np.uint32)


def selection_keys(arm: Arm, scores: np.ndarray) -> np.ndarray:
    """A key for each document of the pool: the selection takes those with the smallest keys."""
    if arm.select == "top":
        return -scores
    if arm.select == "bottom":
        return np.array(scores)
    if arm.select == "all":
        return np.arange(len(scores), dtype=np.uint32)
    documents = np.arange(len(scores), dtype=np.uint32)
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
    if pool.format == "unrated" and arm.select not in ("random", "all"):
        raise InputError(f"The arm {arm.name} has select={arm.select}, but the pool is unrated: use random or all.")
    if pool.format == "prebuilt" and arm.select != "all":
        raise InputError(
            f"The arm {arm.name} has select={arm.select}, but the pool is prebuilt and taken as it is: use all."
        )
    if arm.tokens is not None and not tokens_known:
        raise InputError(
            f"The arm {arm.name} asks for {arm.tokens:,} tokens, but the pool has no column {pool.token_count_column!r} "
            "to count them: give a share instead, or token_count_column."
        )


def select(
    arm: Arm, pool: Pool, scores: np.ndarray, tokens: np.ndarray | None = None, excluded: np.ndarray | None = None
) -> np.ndarray:
    """Document numbers of the arm in its order, uint32 (k,).

    `scores` (n,) and `tokens` (n,) cover all documents of the pool; a token count of -1 means unknown and counts as the mean
    of the known ones. `excluded` lists in ascending order the documents that may not be taken. Ties go by document number,
    that is, by (blob, row). A share refers to the documents that may be taken, is rounded half up, and gives at least one.
    A token budget takes documents in the order of selection until it is reached. In a prebuilt pool, best-first is the order
    in which the documents are stored. Raises InputError.
    """
    check(arm, pool, tokens_known=tokens is not None)
    excluded = np.zeros(0, np.uint32) if excluded is None else excluded
    keys = np.delete(selection_keys(arm, scores), excluded)
    if arm.tokens is not None:
        chosen = _until(arm, pool, keys, np.delete(tokens, excluded))
    else:
        chosen = first(keys, len(keys) if arm.select == "all" else max(1, int(arm.share * len(keys) + 0.5)))
    del keys
    # Positions among the free documents become numbers in the pool: each moves up by the excluded documents before it.
    chosen += np.searchsorted(excluded - np.arange(len(excluded)), chosen, side="right").astype(np.uint32)
    if arm.order == "shuffled":
        return chosen[np.argsort(random_bits(arm.seed, ORDER, chosen))]
    if pool.format == "prebuilt":
        return chosen if arm.order == "best-first" else chosen[::-1]
    ranked = scores[chosen]
    if arm.order == "best-first":
        np.negative(ranked, out=ranked)
    return chosen[stable_order(ranked)]


def _until(arm: Arm, pool: Pool, keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Ascending positions of the fewest documents, in order of their keys, that hold `arm.tokens` tokens. uint32."""
    known = tokens >= 0
    counts = np.where(known, tokens, np.int32(round(tokens[known].mean())))
    order = stable_order(keys)
    total = np.cumsum(counts[order], dtype=np.int64)
    if total[-1] < arm.tokens:
        raise InputError(
            f"The arm {arm.name} asks for {arm.tokens:,} tokens, but the pool {pool.name} holds {total[-1]:,}: "
            "ask for fewer, or for a share."
        )
    return np.sort(order[: int(np.searchsorted(total, arm.tokens)) + 1]).astype(np.uint32)
