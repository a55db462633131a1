"""How fast a preparation is: rates that fit whole ones by `python -m benchmarks.data peers`, on two cores of a virtual AMD EPYC machine.

How they grow with the cores was fitted to those and to sixteen cores of a virtual Intel Xeon machine; beyond that it is
extrapolated.
"""

DECODE_BYTES_PER_SECOND = 400e6
"""Decoded text that one core receives as Snappy Parquet, decodes, orders and writes as runs."""

ENCODE_BYTES_PER_SECOND = 250e6
"""Decoded text that one core reads from runs, orders, compresses with zstd level 3, hashes and writes."""

CORE_EFFICIENCY, SCALING = 0.95, 0.75
"""`cores` cores reach `CORE_EFFICIENCY * cores ** SCALING` times the rates of one: they share memory and caches."""


def together(cores: int) -> float:
    """How many times the rates of one core `cores` cores reach."""
    return CORE_EFFICIENCY * cores**SCALING
