"""Random draws over the documents of a pool.

Each draw is a hash of (seed, purpose, number). It does not depend on the machine, the number of workers or the version of
a library, nor on the draws of other documents.
"""

import hashlib

import numpy as np

ORDER, SELECT, HOLDOUT, SAMPLE, TIES = 1, 2, 3, 4, 5
"""What a draw is for: one seed gives independent draws for each purpose."""

CHUNK = 1 << 16
"""Documents per step of array arithmetic, which keeps temporary arrays small however large the pool is."""


def random_bits(seed: int, purpose: int, numbers: np.ndarray) -> np.ndarray:
    """64 random bits for each number, uint64 (n,), all distinct: SplitMix64 (Steele, Lea & Flood 2014)."""
    start = np.uint64(int.from_bytes(hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:8], "little"))
    bits = np.empty(len(numbers), np.uint64)
    with np.errstate(over="ignore"):
        for i in range(0, len(numbers), CHUNK):
            z = numbers[i : i + CHUNK].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
            z ^= z >> np.uint64(30)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(27)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            bits[i : i + CHUNK] = z
    return bits


def gumbel(seed: int, numbers: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise for each number, float64 (n,)."""
    bits = random_bits(seed, SELECT, numbers) >> np.uint64(11)
    return -np.log(-np.log((bits.astype(np.float64) + 0.5) * 2.0**-53))
