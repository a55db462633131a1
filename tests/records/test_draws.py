"""Random draws: the published generator, independent purposes, the right distributions."""

import hashlib

import numpy as np
from scipy import stats

from tasks.records.draws import ORDER, SELECT, gumbel, random_bits

DOCUMENTS = np.arange(20_000)


def splitmix64(state: int) -> int:
    """The finalizer of the published reference implementation, on one integer."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_random_bits_are_those_of_splitmix64_and_never_equal() -> None:
    golden = 0x9E3779B97F4A7C15
    assert splitmix64(1234567 + golden) == 6457827717110365317  # its published first output for the seed 1234567
    state = int.from_bytes(hashlib.sha256(b"2/7").digest()[:8], "little")
    bits = random_bits(7, SELECT, DOCUMENTS)
    assert bits[:50].tolist() == [splitmix64(state + document * golden) for document in range(50)]
    assert len(np.unique(bits)) == len(bits)
    assert stats.kstest(bits / 2.0**64, "uniform").pvalue > 0.001
    assert not np.intersect1d(bits, random_bits(7, ORDER, DOCUMENTS)).size
    assert not np.intersect1d(bits, random_bits(8, SELECT, DOCUMENTS)).size


def test_gumbel_noise_has_the_gumbel_distribution() -> None:
    assert stats.kstest(gumbel(3, DOCUMENTS), "gumbel_r").pvalue > 0.001
