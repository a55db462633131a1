"""Which documents an arm takes and in which order, decided on the index alone.

All randomness is a hash of (seed, document number): it does not depend on the machine, the number of workers or the
version of a library, and a document's draw does not depend on the others.
"""

import hashlib

import numpy as np

from tasks.errors import InputError
from tasks.spec import Arm, Pool

ORDER, SELECT = 1, 2
"""What a random number is for, so that one seed gives independent draws for each purpose."""


CHUNK = 1 << 16
"""Documents of one step of arithmetic: temporary arrays stay small however large the pool is."""


def random_bits(seed: int, purpose: int, documents: np.ndarray) -> np.ndarray:
    """64 random bits for each document, all different: SplitMix64 (Steele, Lea & Flood 2014), uint64 (n,)."""
    start = np.uint64(int.from_bytes(hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:8], "little"))
    bits = np.empty(len(documents), np.uint64)
    with np.errstate(over="ignore"):
        for i in range(0, len(documents), CHUNK):
            z = documents[i : i + CHUNK].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
            z ^= z >> np.uint64(30)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(27)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            bits[i : i + CHUNK] = z
    return bits


def gumbel(seed: int, documents: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise for each document, float64 (n,)."""
    bits = random_bits(seed, SELECT, documents) >> np.uint64(11)
    return -np.log(-np.log((bits.astype(np.float64) + 0.5) * 2.0**-53))


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Positions that sort `keys`, equal ones by position, int64 (n,): NumPy's stable sort in half of its time.

    Its quick sort has vector instructions and leaves equal keys in any order, so those are put right afterwards.
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
    """Positions of the `count` smallest keys, ties by position; in the order of positions, not of keys. uint32."""
    if count >= len(keys):
        return np.arange(len(keys), dtype=np.uint32)
    limit = np.partition(keys, count - 1)[count - 1]
    chosen = keys < limit
    chosen[np.flatnonzero(keys == limit)[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen).astype(np.uint32)


def selection_keys(arm: Arm, scores: np.ndarray) -> np.ndarray:
    """What the selection takes the smallest of, for each document of the pool."""
    if arm.select == "top":
        return -scores
    if arm.select == "bottom":
        return np.array(scores)
    if arm.select == "all":
        return np.arange(len(scores), dtype=np.uint32)
    documents = np.arange(len(scores), dtype=np.uint32)
    if arm.select == "random":
        return random_bits(arm.seed, SELECT, documents)
    # top k by score / temperature + Gumbel noise is a draw without replacement with weights exp(score / temperature)
    # (Kool et al. 2019; QuRating, Wettig et al. 2024, section 3)
    keys = np.empty(len(scores))
    for i in range(0, len(scores), CHUNK):
        part = slice(i, i + CHUNK)
        keys[part] = -(scores[part] / arm.temperature + gumbel(arm.seed, documents[part]))
    return keys


def check(arm: Arm, pool: Pool, *, tokens_known: bool) -> None:
    """Refuse what the pool cannot serve. Raises InputError."""
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

    `scores` and `tokens` (-1: unknown, counted as the mean of the known ones) are those of all documents of the pool,
    `excluded` the numbers of those that may not be taken, ascending. Ties go by document number, that is by (blob, row). A share
    is of the documents that may be taken, rounded half up, and at least one. A token budget takes documents in the order of
    selection until it is reached. In a prebuilt pool best-first is the order in which the documents are stored.
    Raises InputError.
    """
    check(arm, pool, tokens_known=tokens is not None)
    excluded = np.zeros(0, np.uint32) if excluded is None else excluded
    keys = np.delete(selection_keys(arm, scores), excluded)
    if arm.tokens is not None:
        chosen = _until(arm, pool, keys, np.delete(tokens, excluded))
    else:
        chosen = first(keys, len(keys) if arm.select == "all" else max(1, int(arm.share * len(keys) + 0.5)))
    del keys
    # positions among the free documents -> numbers in the pool: each is moved up by the excluded ones before it
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
    """Positions, ascending, of the first documents by key that hold `arm.tokens` tokens. uint32."""
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
