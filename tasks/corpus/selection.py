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


def random_bits(seed: int, purpose: int, documents: np.ndarray) -> np.ndarray:
    """64 random bits for each document, all different: SplitMix64 (Steele, Lea & Flood 2014), uint64 (n,)."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    with np.errstate(over="ignore"):
        z = documents.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(int.from_bytes(digest[:8], "little"))
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def gumbel(seed: int, documents: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise for each document, float64 (n,)."""
    uniform = ((random_bits(seed, SELECT, documents) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def first(keys: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` smallest keys, ties by position; in the order of positions, not of keys."""
    if count >= len(keys):
        return np.arange(len(keys))
    limit = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < limit)
    ties = np.flatnonzero(keys == limit)[: count - len(below)]
    return np.sort(np.concatenate([below, ties]))


def selection_keys(arm: Arm, pool: Pool, documents: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """What the selection takes the smallest of; None: documents in their order in the pool."""
    if arm.select == "all":
        return None
    if arm.select == "random":
        return random_bits(arm.seed, SELECT, documents)
    if arm.select == "temperature":
        # top k by score / temperature + Gumbel noise is a draw without replacement with weights exp(score / temperature)
        # (Kool et al. 2019; QuRating, Wettig et al. 2024, section 3)
        return -(scores / arm.temperature + gumbel(arm.seed, documents))
    return -scores if arm.select == "top" else scores


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


def select(arm: Arm, pool: Pool, documents: np.ndarray, scores: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """Document numbers of the arm in its order, int64 (k,).

    `documents` are those that may be taken (ascending numbers), with their `scores` and `tokens` (-1: unknown, counted
    as the mean of the known ones). Ties go by document number, that is by (blob, row). A share is of these documents,
    rounded half up, and at least one. A token budget takes documents in the order of selection until it is reached.
    In a prebuilt pool best-first is the order in which the documents are stored. Raises InputError.
    """
    check(arm, pool, tokens_known=tokens is not None)
    keys = selection_keys(arm, pool, documents, scores)
    if arm.tokens is not None:
        chosen = _until(arm, pool, keys, tokens)
    elif arm.select == "all":
        chosen = np.arange(len(documents))
    else:
        chosen = first(keys, max(1, int(arm.share * len(documents) + 0.5)))
    if arm.order == "shuffled":
        order = np.argsort(random_bits(arm.seed, ORDER, documents[chosen]))
    elif pool.format == "prebuilt":
        order = np.arange(len(chosen)) if arm.order == "best-first" else np.arange(len(chosen))[::-1]
    else:
        sign = -1.0 if arm.order == "best-first" else 1.0
        order = np.argsort(sign * scores[chosen], kind="stable")
    return documents[chosen[order]]


def _until(arm: Arm, pool: Pool, keys: np.ndarray | None, tokens: np.ndarray) -> np.ndarray:
    """Positions, ascending, of the first documents by key that hold `arm.tokens` tokens."""
    known = tokens >= 0
    counts = np.where(known, tokens, round(tokens[known].mean()))
    order = np.arange(len(counts)) if keys is None else np.argsort(keys, kind="stable")
    total = np.cumsum(counts[order], dtype=np.int64)
    if total[-1] < arm.tokens:
        raise InputError(
            f"The arm {arm.name} asks for {arm.tokens:,} tokens, but the pool {pool.name} holds {total[-1]:,}: "
            "ask for fewer, or for a share."
        )
    return np.sort(order[: int(np.searchsorted(total, arm.tokens)) + 1])
